"""Data that leaves Freshet or comes back: all histories and lists as Parquet (`export`), one user's data (`user`,
`forget`), and the state outside of Kafka (`backup`, `restore`)."""
