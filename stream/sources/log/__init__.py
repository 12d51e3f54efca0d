"""Interaction logs from files. `reader` is the entry point; `options` are what a user can say about a file."""
