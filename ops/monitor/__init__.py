"""Counts of the stream in, decisions out: is there drift, is the feed valid, should the model train or go back?"""
