"""Stored models: the slots that announce them, their artifacts, and the statistics stored with them."""
