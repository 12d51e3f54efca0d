from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from kafka.admin._configs import ConfigResource
from kafka.admin._groups import MemberToRemove
from kafka.admin._topics import NewTopic
from kafka.protocol.consumer import OffsetSpec
from kafka.structs import OffsetAndMetadata, OffsetAndTimestamp, TopicPartition

class KafkaAdminClient:
    DEFAULT_CONFIG: dict[str, Any]

    def __init__(
        self,
        *,
        bootstrap_servers: str | list[str] = ...,
        security_protocol: str = ...,
        ssl_context: Any = ...,
        sasl_mechanism: str = ...,
        sasl_plain_username: str = ...,
        sasl_plain_password: str = ...,
        request_timeout_ms: int = ...,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None: ...
    def close(self) -> None: ...
    def list_topics(self) -> list[str]: ...
    # Descriptions are the broker's answers as nested dictionaries, with the field names of the protocol.
    def describe_topics(self, topics: Sequence[str] | None = None) -> list[dict[str, Any]]: ...
    def create_topics(
        self,
        new_topics: Mapping[str, Mapping[str, Any]] | Sequence[NewTopic],
        timeout_ms: float | None = None,
        validate_only: bool = False,
        raise_errors: bool = True,
        wait_for_metadata: bool = False,
    ) -> Any: ...
    def wait_for_topics(self, topic_names: Sequence[str], timeout_ms: float = 10000) -> Any: ...
    def delete_topics(
        self, topics: Sequence[str], timeout_ms: float | None = None, raise_errors: bool = True
    ) -> Any: ...
    def describe_configs(
        self,
        config_resources: Sequence[ConfigResource],
        include_synonyms: bool = False,
        config_filter: str = "modified",
    ) -> dict[str, dict[str, dict[str, dict[str, Any]]]]: ...
    def create_partitions(
        self,
        topic_partitions: Mapping[str, int],
        timeout_ms: float | None = None,
        validate_only: bool = False,
        raise_errors: bool = True,
    ) -> Any: ...
    def delete_records(
        self,
        records_to_delete: Mapping[TopicPartition, int],
        timeout_ms: float | None = None,
        partition_leader_id: int | None = None,
    ) -> Any: ...
    def list_partition_offsets(
        self, topic_partition_specs: Mapping[TopicPartition, OffsetSpec | int]
    ) -> dict[TopicPartition, OffsetAndTimestamp]: ...
    def describe_transactions(self, transactional_ids: Iterable[str]) -> dict[str, Any]: ...
    def describe_groups(
        self,
        group_ids: Iterable[str],
        group_coordinator_id: int | None = None,
        include_authorized_operations: bool = False,
    ) -> dict[str, dict[str, Any]]: ...
    def remove_group_members(
        self, group_id: str, members: Iterable[MemberToRemove], group_coordinator_id: int | None = None
    ) -> dict[MemberToRemove, type[Exception]]: ...
    def list_group_offsets(
        self, group_specs: str | Sequence[str] | Mapping[str, Sequence[TopicPartition] | None]
    ) -> dict[str, dict[TopicPartition, OffsetAndMetadata]]: ...
    def alter_group_offsets(
        self,
        group_id: str,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        group_coordinator_id: int | None = None,
    ) -> dict[TopicPartition, type[Exception]]: ...
    def delete_groups(self, group_ids: Sequence[str], group_coordinator_id: int | None = None) -> Any: ...
    def describe_cluster(self) -> dict[str, Any]: ...
