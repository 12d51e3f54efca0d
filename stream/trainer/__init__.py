"""The trainer process: histories in, judged and announced models out."""
