from collections.abc import Iterable, Mapping
from typing import Any, Literal, overload

from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

class KafkaConsumer:
    DEFAULT_CONFIG: dict[str, Any]
    config: dict[str, Any]
    _coordinator: ConsumerCoordinator
    _fetcher: Fetcher

    def __init__(
        self,
        *topics: str,
        bootstrap_servers: list[str] = ...,
        security_protocol: str = ...,
        ssl_context: Any = ...,
        sasl_mechanism: str = ...,
        sasl_plain_username: str = ...,
        sasl_plain_password: str = ...,
        client_id: str = ...,
        group_id: str | None = ...,
        group_instance_id: str | None = ...,
        enable_auto_commit: bool = ...,
        auto_offset_reset: str = ...,
        isolation_level: Literal["read_committed", "read_uncommitted"] = ...,
        partition_assignment_strategy: list[type] = ...,
        session_timeout_ms: int = ...,
        heartbeat_interval_ms: int = ...,
        max_poll_interval_ms: int = ...,
        max_poll_records: int = ...,
        max_partition_fetch_bytes: int = ...,
        fetch_max_wait_ms: int = ...,
        metadata_max_age_ms: int = ...,
        metrics_enabled: bool = ...,
    ) -> None: ...
    def assign(self, partitions: list[TopicPartition]) -> None: ...
    def assignment(self) -> set[TopicPartition]: ...
    def beginning_offsets(
        self, partitions: Iterable[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]: ...
    def close(self, autocommit: bool = True, timeout_ms: float | None = None) -> None: ...
    def commit(
        self, offsets: Mapping[TopicPartition, OffsetAndMetadata] | None = None, timeout_ms: float | None = None
    ) -> None: ...
    @overload
    def committed(
        self, partition: TopicPartition, metadata: Literal[False] = False, timeout_ms: float | None = None
    ) -> int | None: ...
    @overload
    def committed(
        self, partition: TopicPartition, metadata: Literal[True], timeout_ms: float | None = None
    ) -> OffsetAndMetadata | None: ...
    def end_offsets(
        self, partitions: Iterable[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]: ...
    def group_metadata(self) -> ConsumerGroupMetadata: ...
    def partitions_for_topic(self, topic: str) -> set[int] | None: ...
    def pause(self, *partitions: TopicPartition) -> None: ...
    def poll(
        self, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[ConsumerRecord]]: ...
    def position(self, partition: TopicPartition, timeout_ms: float | None = None) -> int: ...
    def resume(self, *partitions: TopicPartition) -> None: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    def seek_to_beginning(self, *partitions: TopicPartition) -> None: ...
    def seek_to_end(self, *partitions: TopicPartition) -> None: ...
    def subscribe(
        self,
        topics: Iterable[str] = (),
        pattern: str | None = None,
        listener: ConsumerRebalanceListener | None = None,
    ) -> None: ...
