"""The updater process: interactions in, durable histories and refreshes out."""
