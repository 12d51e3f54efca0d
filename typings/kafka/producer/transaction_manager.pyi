from collections.abc import Mapping
from typing import Any

from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

class TransactionalRequestResult:
    def wait(self, timeout_ms: float | None = None) -> bool: ...

class TransactionManager:
    _pending_txn_offset_commits: dict[TopicPartition, OffsetAndMetadata]
    producer_id_and_epoch: Any

    def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_metadata: ConsumerGroupMetadata
    ) -> TransactionalRequestResult: ...
    def begin_commit(self) -> TransactionalRequestResult: ...
    def begin_abort(self) -> TransactionalRequestResult: ...
