"""Pilots: some users are served lists with other settings, and the outcomes are counted and compared.

`pilot` defines a pilot, its users and its stages; `counts` are the outcomes that scorers count; `difference` compares
two variants with bounds that are valid at any time; `report` gives the verdict; `topic` stores all of it in Kafka.
"""
