from collections import deque
from contextlib import AbstractContextManager

from kafka.producer.future import FutureRecordMetadata
from kafka.structs import TopicPartition

class ProducerBatch:
    def try_append(
        self, timestamp_ms: int | None, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> FutureRecordMetadata | None: ...

class RecordAccumulator:
    _batches: dict[TopicPartition, deque[ProducerBatch]]
    def _tp_lock(self, tp: TopicPartition) -> AbstractContextManager[object]: ...
