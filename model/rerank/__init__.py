"""Counts of the stream, and the small network that ranks candidates by these counts and by the model's scores."""
