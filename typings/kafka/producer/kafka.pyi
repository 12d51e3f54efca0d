from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from kafka.producer.future import FutureRecordMetadata
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import TransactionManager
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

class KafkaProducer:
    DEFAULT_CONFIG: dict[str, Any]
    config: dict[str, Any]
    _accumulator: RecordAccumulator
    _transaction_manager: TransactionManager | None
    _sender: Sender

    def __init__(
        self,
        *,
        bootstrap_servers: list[str] = ...,
        security_protocol: str = ...,
        ssl_context: Any = ...,
        sasl_mechanism: str = ...,
        sasl_plain_username: str = ...,
        sasl_plain_password: str = ...,
        acks: Literal[0, 1, -1, "all"] = ...,
        batch_size: int = ...,
        linger_ms: float = ...,
        max_request_size: int = ...,
        max_block_ms: int = ...,
        request_timeout_ms: int = ...,
        delivery_timeout_ms: int = ...,
        transactional_id: str | None = ...,
        transaction_timeout_ms: int = ...,
        metrics_enabled: bool = ...,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None: ...
    def close(self, timeout: float | None = None) -> None: ...
    def partitions_for(self, topic: str) -> set[int]: ...
    def flush(self, timeout: float | None = None) -> None: ...
    def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> FutureRecordMetadata: ...
    def init_transactions(self) -> None: ...
    def begin_transaction(self) -> None: ...
    def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata], group_metadata: ConsumerGroupMetadata
    ) -> None: ...
    def commit_transaction(self) -> None: ...
    def abort_transaction(self) -> None: ...
