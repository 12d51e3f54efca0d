"""The history of each user, and the popularity of items. This package uses neither Kafka nor torch.

Read `history` first (the merge, whose result does not depend on order or repeats), then `codec` (the bytes of a
history), then `store` (RocksDB).
"""
