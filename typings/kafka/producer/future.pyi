from collections.abc import Callable
from typing import Any, NamedTuple

class RecordMetadata(NamedTuple):
    topic: str
    partition: int
    topic_partition: Any
    offset: int
    timestamp: int
    checksum: int | None
    serialized_key_size: int
    serialized_value_size: int
    serialized_header_size: int

class FutureRecordMetadata:
    is_done: bool
    def get(self, timeout: float | None = None) -> RecordMetadata: ...
    def failed(self) -> bool: ...
    def succeeded(self) -> bool: ...
    def add_callback(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...
    def add_errback(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...
