"""Pilots: some users are served lists of other settings, and what comes of it is counted and judged.

`pilot` says what a pilot is, who is in which variant, and which steps its life has; `counts` is what scorers count of
it; `difference` says how far two variants differ, readable at any time; `report` makes the verdict of it; `topic` holds
all of it in Kafka.
"""
