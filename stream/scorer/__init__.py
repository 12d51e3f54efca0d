"""The scorer process: refreshes in, ranked lists out."""
