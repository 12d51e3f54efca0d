"""A consumer as a member of a group, without kafka-python's ways of losing its place silently or reading late.

A member with a name is a static one (KIP-345): its partitions wait for it through a restart of up to a session, and go
on at once when it is back, without the others noticing. Kafka gives the place of a name to whoever came last. The one
before is told so in a heartbeat's answer, which kafka-python only logs: here it raises `NameTaken`.
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

_JOIN_SECONDS = 0.25  # longer than an answer takes in a healthy group; no record arrives before it
_METADATA_MS = 4_000
_JOINED_SECONDS = 5.0  # a worker that starts has joined its group
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
        instance: str | None = None,  # the name of a static member
    ) -> None:
        self.moves: deque[Move] = deque()
        self._group, self._instance = group, instance
        self._replaced = False  # by another member of this name
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
        # A member that joins before it knows the topic is assigned nothing, and may not notice when it learns of it.
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
        """Call when something else of this name was fenced. Raises `NameTaken` when that was another worker of this
        name, which then takes this member's place as soon as it has joined; returns when it was not."""
        deadline = time.monotonic() + self._heartbeat_seconds + _JOINED_SECONDS
        while self._instance is not None and not self._replaced and time.monotonic() < deadline:
            try:
                poll_as_member(self._consumer, 0.05)  # in a group that is sharing out, the place is lost by a join
            except FencedInstanceIdError:
                self._replaced = True
        if self._replaced:
            raise NameTaken(str(self._instance), self._group)

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

    def close(self, stay: bool = False) -> None:
        """Leave the group, which shares this member's partitions out at once. A member with a name may `stay`: then
        they wait for its restart, up to a session."""
        if not stay:
            # kafka-python never lets a static member leave, which it tells by this.
            self._consumer._coordinator.is_dynamic_member = lambda: True  # type: ignore[method-assign]
        self._consumer.close(timeout_ms=3000)


def poll_as_member(consumer: KafkaConsumer, timeout_seconds: float) -> dict[TopicPartition, list[ConsumerRecord]]:
    """`consumer.poll`, for a consumer that subscribed as a member of a group.

    A leader that finds other partitions in its topic's metadata begins to join again and stops its heartbeats until it
    has. When the poll that began it ends before the brokers answer, the answer itself takes the reason away: the next
    poll finds nothing to do, the heartbeats stay off, and after its session the member is thrown out. So here a join
    that has begun goes on, in a poll that waits for it. And an answer that comes between two polls, which kafka-python
    drops in order to ask again, with all members once more, is taken.
    """
    coordinator = consumer._coordinator
    if coordinator.rejoining:
        coordinator.request_rejoin()
        timeout_seconds = max(timeout_seconds, _JOIN_SECONDS)
        if coordinator._join_task is not None and coordinator._join_task.is_done:
            coordinator._join_task = _Answer(coordinator._join_task)
    return consumer.poll(timeout_ms=int(timeout_seconds * 1000))


class _Answer:
    """A future that is done and looks as if it were on its way: kafka-python then waits for it, for no time at all."""

    is_done = False

    def __init__(self, future: Future) -> None:
        self.add_callback, self.add_errback = future.add_callback, future.add_errback


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
