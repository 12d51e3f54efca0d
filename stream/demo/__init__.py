"""`freshet demo`: the pipeline watched from outside, with an account at the end."""
