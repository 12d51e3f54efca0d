"""The diffusion recommenders. This package uses neither Kafka nor RocksDB."""
