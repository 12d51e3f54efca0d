"""Offline comparison of models on an interaction log. Nothing that serves imports it."""
