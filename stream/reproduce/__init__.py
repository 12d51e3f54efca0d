"""Makes a served list again, from the log, the history at that time and the artifact with the same hash.

The modules in their order: `served` finds the list, `log_history` merges the history that it was made of, `tapes` and
`batches` restore the scorer's counts and the batch of the list, `verdict` compares, `run` does all of these steps.
"""
