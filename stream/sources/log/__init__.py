"""Interaction logs from files. Begin with `reader`; `options` is what a user can say about a file."""
