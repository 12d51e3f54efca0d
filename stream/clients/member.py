"""A consumer as a member of a group, without kafka-python's ways of losing its place silently or reading late."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import ConsumerGroupMetadata, MemberState, OffsetAndMetadata

from stream.clients.connection import KafkaConnection

__all__ = ["GroupMember", "Move", "poll_as_member", "poll_fresh"]

_JOIN_SECONDS = 0.25  # longer than an answer takes in a healthy group; no record arrives before it
_METADATA_MS = 4_000
_ANSWER_SECONDS = 0.005  # longest wait for brokers that were just asked


class Move(NamedTuple):
    """Partitions that came to this member or went to others."""

    kind: Literal["assigned", "revoked"]
    partitions: frozenset[TopicPartition]


class _Listener(ConsumerRebalanceListener):
    """Notes what moved. It runs on the consumer's IO thread, where a blocking call raises and a slow one stops the
    heartbeats."""

    def __init__(self, consumer: KafkaConsumer, moves: deque[Move]) -> None:
        self._consumer, self._moves = consumer, moves

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        partitions = frozenset(assigned)
        self._consumer.pause(*partitions)
        self._moves.append(Move("assigned", partitions))

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._moves.append(Move("revoked", frozenset(revoked)))

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self._moves.append(Move("revoked", frozenset(lost)))


class GroupMember:
    """One member of a group that shares out the partitions of one topic. It commits no offsets: its owner does, in the
    transactions of a producer that carry `metadata`.

    `moves` fills during `poll`, oldest first; the owner empties it between polls. A partition that was assigned is
    paused, so that nothing is read of it, until `start`. One thread at a time may use a member.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        group: str,
        topic: str,
        *,
        session_seconds: float,
        poll_records: int,
        fetch_bytes: int,
        name: str = "freshet",  # by which the brokers describe this member
    ) -> None:
        self.moves: deque[Move] = deque()
        self._consumer = KafkaConsumer(
            **connection.kafka_python(),
            client_id=name,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # Makes the broker hold back committed offsets while a transaction that moves them is pending.
            isolation_level="read_committed",
            partition_assignment_strategy=[CooperativeStickyAssignor],
            session_timeout_ms=int(session_seconds * 1000),
            heartbeat_interval_ms=max(int(session_seconds * 1000 / 10), 300),
            max_poll_records=poll_records,
            max_partition_fetch_bytes=fetch_bytes,
            fetch_max_wait_ms=100,
            metadata_max_age_ms=_METADATA_MS,  # after which more partitions are noticed
            metrics_enabled=False,
        )
        # A member that joins before it knows the topic is assigned nothing, and may not notice when it learns of it.
        while not self._consumer.partitions_for_topic(topic):
            time.sleep(0.1)
        self._consumer.subscribe([topic], listener=_Listener(self._consumer, self.moves))

    def poll(self, timeout_seconds: float, enough: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        """See `poll_fresh`."""
        return poll_fresh(self._consumer, timeout_seconds, enough)

    @property
    def metadata(self) -> ConsumerGroupMetadata:
        """The membership that a transaction carries: the broker refuses it once there is another."""
        return self._consumer.group_metadata()

    @property
    def between_generations(self) -> bool:
        """The group is sharing partitions out anew. A broker takes offsets without a generation from anybody, and under
        a new generation nothing may be committed of partitions that moved with it."""
        return self.metadata.generation_id < 0 or bool(self.moves)

    @property
    def generation(self) -> int | None:
        """The generation of the group, in which its partitions are shared out; None while it has not settled."""
        metadata = self.metadata
        return metadata.generation_id if metadata.state is MemberState.STABLE and metadata.generation_id >= 0 else None

    def committed(self, tp: TopicPartition) -> OffsetAndMetadata | None:
        """What the group committed last, once no transaction that moves it is pending."""
        return self._consumer.committed(tp, metadata=True)

    def beginning(self, tp: TopicPartition) -> int:
        """The first offset that retention left."""
        return self._consumer.beginning_offsets([tp])[tp]

    def start(self, tp: TopicPartition, offset: int) -> None:
        """Read an assigned partition from `offset` on. kafka-python would keep the position of a former time."""
        self._consumer.seek(tp, offset)
        self._consumer.resume(tp)

    def close(self) -> None:
        self._consumer.close(timeout_ms=3000)


def poll_as_member(consumer: KafkaConsumer, timeout_seconds: float) -> dict[TopicPartition, list[ConsumerRecord]]:
    """`consumer.poll`, for a consumer that subscribed as a member of a group.

    A leader that finds other partitions in its topic's metadata begins to join again and stops its heartbeats until it
    has. When the poll that began it ends before the brokers answer, the answer itself takes the reason away: the next
    poll finds nothing to do, the heartbeats stay off, and after its session the member is thrown out. And an answer
    that comes between two polls is dropped, to ask again. So here a join that has begun goes on, in a poll that waits
    for it.
    """
    coordinator = consumer._coordinator
    if coordinator.rejoining:
        coordinator.request_rejoin()
        timeout_seconds = max(timeout_seconds, _JOIN_SECONDS)
    return consumer.poll(timeout_ms=int(timeout_seconds * 1000))


def poll_fresh(
    consumer: KafkaConsumer, timeout_seconds: float, enough: int
) -> dict[TopicPartition, list[ConsumerRecord]]:
    """`poll_as_member`, which asks again when less than `enough` records came out of memory.

    If kafka-python has prefetched records, poll returns them and only then sends the next fetch, so a loop that sleeps
    between polls always reads the previous fetch. If it has none, poll sends a fetch, waits for its records, and leaves
    nothing prefetched.
    """
    found = poll_as_member(consumer, timeout_seconds)
    if timeout_seconds and found and sum(map(len, found.values())) < enough and _has_fetched(consumer):
        for tp, records in poll_as_member(consumer, _ANSWER_SECONDS).items():
            found.setdefault(tp, []).extend(records)
    return found


def _has_fetched(consumer: KafkaConsumer) -> bool:
    """An answer of a broker is on its way, or came meanwhile."""
    fetcher = consumer._fetcher
    return bool(fetcher._nodes_with_pending_fetch_requests or fetcher._completed_fetches)
