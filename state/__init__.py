"""What is known about each user, and what is popular among them. Knows neither Kafka nor torch.

Read `history` first (the merge that nothing can corrupt), then `codec` (its bytes), then `store` (RocksDB).
"""
