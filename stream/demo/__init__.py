"""`freshet demo`: runs the pipeline, measures it from outside, and prints a report at the end."""
