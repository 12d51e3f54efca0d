"""What is known about each user. Knows neither Kafka nor torch.

Read `history` first (the merge that nothing can corrupt), then `codec` (its bytes), then `store` (RocksDB).
"""
