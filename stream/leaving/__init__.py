"""What leaves Freshet and comes back: everything as Parquet (`export`), one user (`user`, `forget`), and what Kafka
does not hold (`backup`)."""
