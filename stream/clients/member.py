"""A consumer that is a member of a group, without two faults of kafka-python: losing its place silently, reading late.

A member with a name is a static member (KIP-345): when it restarts within a session, the group keeps its partitions for
it, it goes on with them at once, and no rebalance disturbs the others. When two members have one name, Kafka gives the
place to the one that joined last. The other one is told so in the answer to a heartbeat, which kafka-python only logs:
here it raises `NameTaken`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import FencedInstanceIdError
from kafka.future import Future
from kafka.structs import ConsumerGroupMetadata, MemberState, OffsetAndMetadata

from stream.clients.connection import KafkaConnection
from stream.clients.names import NameTaken

__all__ = ["GroupMember", "Move", "poll_as_member", "poll_fresh"]

_JOIN_SECONDS = 0.25  # longer than a join takes in a healthy group; no record arrives before the join ends
_METADATA_MS = 4_000
_JOINED_SECONDS = 5.0  # after this time a worker that starts has joined its group
_ANSWER_SECONDS = 0.005  # longest wait for brokers that were just asked


class Move(NamedTuple):
    """Partitions that came to this member or went to others."""

    kind: Literal["assigned", "revoked"]
    partitions: frozenset[TopicPartition]


class _Listener(ConsumerRebalanceListener):
    """Notes the moves of partitions. It runs on the consumer's IO thread, where a blocking call raises an error and a
    slow call stops the heartbeats."""

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
    """One member of a group whose members divide the partitions of one topic among them. It commits no offsets: its
    owner does, in the transactions of a producer that carry `metadata`.

    `moves` is filled during `poll`, oldest first; the owner empties it between polls. An assigned partition is paused,
    so that no records of it are read, until `start`. One thread at a time may use a member.
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
        instance: str | None = None,  # the name of a static member
    ) -> None:
        self.moves: deque[Move] = deque()
        self._group, self._instance = group, instance
        self._replaced = False  # another member of this name has the place
        self._heartbeat_seconds = max(session_seconds / 10, 0.3)
        self._consumer = KafkaConsumer(
            **connection.kafka_python(),
            client_id=name,
            group_id=group,
            group_instance_id=instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # Makes the broker hold back committed offsets while a transaction that moves them is pending.
            isolation_level="read_committed",
            partition_assignment_strategy=[CooperativeStickyAssignor],
            session_timeout_ms=int(session_seconds * 1000),
            heartbeat_interval_ms=int(self._heartbeat_seconds * 1000),
            max_poll_records=poll_records,
            max_partition_fetch_bytes=fetch_bytes,
            fetch_max_wait_ms=100,
            metadata_max_age_ms=_METADATA_MS,  # after which more partitions are noticed
            metrics_enabled=False,
        )
        self._note_replacement()
        # A member that joins before it knows the topic is assigned no partitions, and that may never be corrected.
        while not self._consumer.partitions_for_topic(topic):
            time.sleep(0.1)
        self._consumer.subscribe([topic], listener=_Listener(self._consumer, self.moves))

    def _note_replacement(self) -> None:
        coordinator = self._consumer._coordinator
        handle = coordinator._handle_heartbeat_response

        def handle_and_note(response: object, send_time: float) -> None:
            try:
                handle(response, send_time)
            except FencedInstanceIdError:
                self._replaced = True
                raise

        coordinator._handle_heartbeat_response = handle_and_note  # type: ignore[method-assign]

    def poll(self, timeout_seconds: float, enough: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        """See `poll_fresh`. Raises `NameTaken` once another member of this name has joined."""
        try:
            found = poll_fresh(self._consumer, timeout_seconds, enough)
        except FencedInstanceIdError:
            self._replaced = True
        if self._replaced:
            raise NameTaken(str(self._instance), self._group)
        return found

    def refuse_second(self) -> None:
        """Call this when the transactional producer of this name was fenced. Raises `NameTaken` if the cause is another
        worker of this name, which takes this member's place as soon as it has joined. Returns if it is not."""
        deadline = time.monotonic() + self._heartbeat_seconds + _JOINED_SECONDS
        while self._instance is not None and not self._replaced and time.monotonic() < deadline:
            try:
                poll_as_member(self._consumer, 0.05)  # during a rebalance, the loss of the place shows in the join
            except FencedInstanceIdError:
                self._replaced = True
        if self._replaced:
            raise NameTaken(str(self._instance), self._group)

    @property
    def metadata(self) -> ConsumerGroupMetadata:
        """The membership that a transaction carries: the broker refuses it once the group has a newer generation."""
        return self._consumer.group_metadata()

    @property
    def between_generations(self) -> bool:
        """Whether the group is in a rebalance, so that no offsets may be committed. Without a generation, the broker
        would take offsets from any member. With the new one, offsets of partitions that have just moved away must not
        be committed."""
        return self.metadata.generation_id < 0 or bool(self.moves)

    @property
    def generation(self) -> int | None:
        """The generation of the group; None while the group is not stable."""
        metadata = self.metadata
        return metadata.generation_id if metadata.state is MemberState.STABLE and metadata.generation_id >= 0 else None

    def committed(self, tp: TopicPartition) -> OffsetAndMetadata | None:
        """The group's committed offset. Waits until no transaction that changes it is pending."""
        return self._consumer.committed(tp, metadata=True)

    def beginning(self, tp: TopicPartition) -> int:
        """The first offset that retention has not removed."""
        return self._consumer.beginning_offsets([tp])[tp]

    def start(self, tp: TopicPartition, offset: int) -> None:
        """Read an assigned partition from `offset` on. Without the `seek`, kafka-python would go on from the position
        of an earlier assignment."""
        self._consumer.seek(tp, offset)
        self._consumer.resume(tp)

    def close(self, stay: bool = False) -> None:
        """Leave the group, which gives this member's partitions to others at once. A member with a name may `stay`: its
        partitions then wait for its restart, for up to a session."""
        if not stay:
            # kafka-python lets only dynamic members leave.
            self._consumer._coordinator.is_dynamic_member = lambda: True  # type: ignore[method-assign]
        self._consumer.close(timeout_ms=3000)


def poll_as_member(consumer: KafkaConsumer, timeout_seconds: float) -> dict[TopicPartition, list[ConsumerRecord]]:
    """`consumer.poll`, for a consumer that subscribed as a member of a group.

    It works around two faults of kafka-python. First, a leader that finds new partitions in its topic's metadata begins
    to join again, and stops its heartbeats until it has joined. When the poll that began the join ends before the
    brokers answer, the answer removes the reason for the join: the next poll finds nothing to do, the heartbeats stay
    off, and after its session the group removes the member. So here a join that has begun is continued, in a poll that
    waits for it. Second, kafka-python drops an answer to a join that comes between two polls, and lets all members join
    once more. Here that answer is used.
    """
    coordinator = consumer._coordinator
    if coordinator.rejoining:
        coordinator.request_rejoin()
        timeout_seconds = max(timeout_seconds, _JOIN_SECONDS)
        if coordinator._join_task is not None and coordinator._join_task.is_done:
            coordinator._join_task = _Answer(coordinator._join_task)
    return consumer.poll(timeout_ms=int(timeout_seconds * 1000))


class _Answer:
    """A future that is done but says that it is not: kafka-python then waits for it, which returns at once."""

    is_done = False

    def __init__(self, future: Future) -> None:
        self.add_callback, self.add_errback = future.add_callback, future.add_errback


def poll_fresh(
    consumer: KafkaConsumer, timeout_seconds: float, enough: int
) -> dict[TopicPartition, list[ConsumerRecord]]:
    """Call `poll_as_member`, and again when it returned fewer than `enough` records, which were prefetched.

    If kafka-python has prefetched records, a poll returns them and only then sends the next fetch, so a loop that
    sleeps between polls always reads the previous fetch. If it has none, a poll sends a fetch, waits for its records,
    and leaves nothing prefetched.
    """
    found = poll_as_member(consumer, timeout_seconds)
    if timeout_seconds and found and sum(map(len, found.values())) < enough and _has_fetched(consumer):
        for tp, records in poll_as_member(consumer, _ANSWER_SECONDS).items():
            found.setdefault(tp, []).extend(records)
    return found


def _has_fetched(consumer: KafkaConsumer) -> bool:
    """Whether an answer to a fetch is expected, or has arrived since the poll."""
    fetcher = consumer._fetcher
    return bool(fetcher._nodes_with_pending_fetch_requests or fetcher._completed_fetches)
