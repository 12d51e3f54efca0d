"""Offline comparison of models on an interaction log. Serving does not import this package."""
