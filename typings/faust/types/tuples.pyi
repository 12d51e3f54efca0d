from collections.abc import Mapping, Sequence
from typing import NamedTuple

class TP(NamedTuple):
    topic: str
    partition: int

class Message:
    topic: str
    partition: int
    offset: int
    timestamp: float | None  # seconds
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] | Mapping[str, bytes] | None
    tp: TP

    def ack(self, consumer: object, n: int = 1) -> bool: ...
