"""Requests to the cluster about topics, offsets and groups."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import (
    ClusterAuthorizationFailedError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    NotCoordinatorError,
)

from stream.clients.connection import KafkaConnection

__all__ = [
    "admin_client",
    "ask_coordinator",
    "check_group_right",
    "group_operations",
    "offset_range",
    "partition_count",
    "topic_identity",
]


_T = TypeVar("_T")
_COORDINATOR_SECONDS = 15.0


def admin_client(connection: KafkaConnection) -> KafkaAdminClient:
    """An admin client. The caller closes it, or uses it in a `with` block. One thread at a time may use it."""
    return KafkaAdminClient(**connection.kafka_python())


def partition_count(admin: KafkaAdminClient, topic: str) -> int:
    """How many partitions a topic has; 0 when it does not exist."""
    (description,) = admin.describe_topics([topic])
    return len(description["partitions"])


def topic_identity(admin: KafkaAdminClient, topic: str) -> dict[str, str]:
    """The identity of a topic, which a store of one partition keeps: a topic that was deleted and made again has
    another id."""
    (description,) = admin.describe_topics([topic])
    return {"topic_id": str(description["topic_id"]), "partitions": str(len(description["partitions"]))}


def offset_range(admin: KafkaAdminClient, tp: TopicPartition) -> tuple[int, int]:
    """The first offset of a partition and its high watermark.

    The end is the high watermark and not the last stable offset, which a consumer of committed records would get:
    a transaction that a lost worker left pending may still commit.
    """
    first = admin.list_partition_offsets({tp: OffsetSpec.EARLIEST})[tp].offset
    end = admin.list_partition_offsets({tp: OffsetSpec.LATEST})[tp].offset
    return first, end


def ask_coordinator(ask: Callable[[], _T]) -> _T:
    """The answer to a question about a group.

    The question is repeated while the coordinator is not ready: a cluster that never had a group makes its offsets
    topic on the first question about one, and a broker that has just become the coordinator reads that topic first.
    """
    deadline = time.monotonic() + _COORDINATOR_SECONDS
    while True:
        try:
            return ask()
        except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def group_operations(admin: KafkaAdminClient, group: str) -> set[str]:
    """What this user may do with a group, such as READ; empty when the brokers do not say. Raises
    `GroupAuthorizationFailedError` when the user may not even see it."""
    try:
        described = ask_coordinator(lambda: admin.describe_groups([group], include_authorized_operations=True))[group]
    except (GroupAuthorizationFailedError, ClusterAuthorizationFailedError):
        raise GroupAuthorizationFailedError(group) from None
    if "Authorization" in str(described.get("error")):
        raise GroupAuthorizationFailedError(group)
    return set(described.get("authorized_operations") or ())


def check_group_right(connection: KafkaConnection, group: str) -> None:
    """Raises `GroupAuthorizationFailedError` when this user may not join a group. A client that joins would try for
    ever, or fail in a thread of its own."""
    with admin_client(connection) as admin:
        operations = group_operations(admin, group)
    if operations and "READ" not in operations:
        raise GroupAuthorizationFailedError(group)
