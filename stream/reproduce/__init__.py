"""A served list made again, from the log, the history at that moment and the artifact by its hash.

Read in this order: `served` finds the list, `log_history` merges the history that it was made of, `tapes` and `batches`
bring back what its scorer had counted and the batch it was ranked in, `verdict` compares, `run` does all of it.
"""
