from collections.abc import Collection, Sequence
from typing import NamedTuple

class ConsumerRecord(NamedTuple):
    topic: str
    partition: int
    leader_epoch: int
    offset: int
    timestamp: int
    timestamp_type: int
    # No deserializer is ever set: keys and values are bytes.
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    checksum: int | None
    serialized_key_size: int
    serialized_value_size: int
    serialized_header_size: int

class Fetcher:
    _nodes_with_pending_fetch_requests: Collection[int]
    _completed_fetches: Collection[object]
