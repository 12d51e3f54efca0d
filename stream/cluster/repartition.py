"""More partitions without losing a user's data: `freshet repartition`.

Producers choose a partition by the key's hash and the number of partitions. If only `interactions` had more partitions,
the events of a user would be in two partitions. This module moves each user to the partition that follows from the new
number, while producers continue to write:

    1. no worker is a member of a group any more, and none starts while `layout` says that users move
    2. all topics have the new number of partitions
    3. each history is merged from all partitions that hold a part of it, and written to its new partition in one
       transaction with the deletions of the others; of a user's lists, the newest one is written
    4. users whose refresh no scorer had read yet get a new refresh; after that the old ones are committed as read
    5. `layout` says that the move is done, and that events are routed to their user's partition from now on

Every step checks what exists and does what is missing, so an interrupted run is finished by running it again: a crash
inside 3 leaves each user complete, in the old partition or in the new one, because a transaction is atomic. Unread
events in a user's former partition are routed by the updaters that start after 5, and so are those of producers that
learn of the new partitions late.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TypeVar

import msgspec
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata

from state import codec
from state.history import EMPTY, merge
from state.store import Store
from stream.clients.admin import admin_client, ask_coordinator, partition_count
from stream.clients.bulk_producer import bulk_producer
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.layout import Layout, read_layout, write_layout
from stream.wire.newest import MOVED
from stream.wire.partitioning import home_of
from stream.wire.records import Refresh
from stream.wire.topics import API_GROUP, SCORER_GROUP, SINK_GROUP, UPDATER_GROUP, TopicPlan

__all__ = ["CRASH_POINTS", "Moved", "RepartitionError", "repartition"]

# Points at which a killed run must leave all users complete; tests kill it at each of them.
CRASH_POINTS = ("announced", "grown", "sent", "histories", "lists", "refreshes")

_USERS_PER_TRANSACTION = 500
_TRANSACTION_SECONDS = 60
_Progress = Callable[[str, int], None]
_T = TypeVar("_T")


class RepartitionError(RuntimeError):
    """Users cannot be moved now; the message says what to do first."""


@dataclass
class Moved:
    """What a run did."""

    users: int = 0  # that have a history
    histories: int = 0  # that were written to another partition, or merged from several
    lists: int = 0
    refreshes: int = 0


class _Published(msgspec.Struct):
    published: int = 0


def repartition(
    connection: KafkaConnection,
    plan: TopicPlan,
    history_items: int,
    folder: Path | None = None,
    progress: _Progress = lambda what, done: None,
    crash: Callable[[str], None] = lambda point: None,
) -> Moved:
    """Move every user of `plan`'s topics to `plan.partitions` partitions.

    Needs room in `folder` (a temporary one when None) for all histories. Raises `RepartitionError` when workers still
    run, or when a topic has more partitions already.
    """
    with admin_client(connection) as admin:
        _refuse_members(admin, plan)
        topics = (plan.interactions, plan.routed, plan.histories, plan.refreshes, plan.recommendations)
        found = {topic: partition_count(admin, topic) for topic in topics}
        too_many = {topic: count for topic, count in found.items() if count > plan.partitions}
        if too_many:
            raise RepartitionError(
                f"{', '.join(f'{topic} has {count}' for topic, count in too_many.items())} partitions, and Kafka takes "
                f"none away: repartition to at least {max(too_many.values())}"
            )
        before = read_layout(connection, plan.layout)
        done = Layout(plan.partitions, "strict")
        if before == done and set(found.values()) == {plan.partitions}:
            return Moved()
        write_layout(connection, plan.layout, msgspec.structs.replace(done, moving=True))
        crash("announced")
        growing = {topic: plan.partitions for topic, count in found.items() if count < plan.partitions}
        if growing:
            admin.create_partitions(growing)
        crash("grown")
        moved = Moved()
        with tempfile.TemporaryDirectory(dir=folder, prefix="repartition-") as work:
            mover = _Mover(connection, plan, Path(work), history_items, progress, crash)
            mover.move_histories(moved)
            crash("histories")
            mover.move_lists(moved)
            crash("lists")
            mover.renew_refreshes(admin, moved)
            crash("refreshes")
        write_layout(connection, plan.layout, done)
        return moved


def _refuse_members(admin: KafkaAdminClient, plan: TopicPlan) -> None:
    groups = [plan.prefix + group for group in (UPDATER_GROUP, SCORER_GROUP, API_GROUP, SINK_GROUP)]
    described = ask_coordinator(lambda: admin.describe_groups(groups))
    running = [f"{len(found['members'])} of {group}" for group, found in described.items() if found["members"]]
    if running:
        raise RepartitionError(
            f"workers still run: {', '.join(running)}. Stop updaters, scorers, APIs and sinks first; what happens "
            f"meanwhile waits in {plan.interactions}. One that was killed counts until its session is over"
        )


class _Mover:
    """The moves of one run. Values are collected per user in a store on disk, so that memory stays bounded."""

    def __init__(
        self,
        connection: KafkaConnection,
        plan: TopicPlan,
        folder: Path,
        history_items: int,
        progress: _Progress,
        crash: Callable[[str], None],
    ) -> None:
        self._connection, self._plan, self._folder = connection, plan, folder
        self._limit, self._progress, self._crash = history_items, progress, crash

    def move_histories(self, moved: Moved) -> None:
        store = self._collect(self._plan.histories)
        try:
            moved.histories = self._move(self._plan.histories, store, self._merged)
            moved.users = sum(1 for _ in _by_user(store))
        finally:
            store.close()

    def move_lists(self, moved: Moved) -> None:
        store = self._collect(self._plan.recommendations)
        try:
            moved.lists = self._move(self._plan.recommendations, store, _newest)
        finally:
            store.close()

    def renew_refreshes(self, admin: KafkaAdminClient, moved: Moved) -> None:
        """Send new refreshes, then commit the old ones as read. In this order a crash has a refresh scored twice; in
        the other order it would be lost."""
        topic, group = self._plan.refreshes, self._plan.prefix + SCORER_GROUP
        offsets = ask_coordinator(lambda: admin.list_group_offsets(group))[group]
        committed = {tp: found.offset for tp, found in offsets.items()}
        with TopicReader(self._connection, poll_records=10_000) as reader:
            partitions = reader.partitions(topic)
            reader.assign(partitions)
            beginnings, ends = reader.beginnings(partitions), dict(reader.ends(partitions))
            for tp in partitions:
                reader.seek(tp, max(committed.get(tp, 0), beginnings[tp]))
            users = Store(self._folder / "refreshes", {"of": topic})
            for records in _batched(reader.read_to_end(), 1_000):
                users.write({record.key: b"" for record in records if record.key is not None})
        try:
            moved.refreshes = self._send_refreshes(users)
        finally:
            users.close()
        offsets = {tp: OffsetAndMetadata(end, "", -1) for tp, end in ends.items()}
        for tp, error in admin.alter_group_offsets(group, offsets).items():
            if error is not NoError:
                raise error(f"offset of {group} in {tp.topic}/{tp.partition}")

    def _send_refreshes(self, users: Store) -> int:
        histories = self._collect(self._plan.histories)
        producer = KafkaProducer(**self._connection.kafka_python(), acks="all", linger_ms=20, metrics_enabled=False)
        sent = []
        try:
            for user, _ in users.items():
                home = home_of(user, self._plan.partitions)
                (value,) = histories.get_many([_key(user, home)])
                if value is not None:
                    refresh = Refresh("model", int(time.time() * 1000), (), codec.for_reading(value))
                    sent.append(producer.send(self._plan.refreshes, refresh.encode(), key=user, partition=home))
            for future in sent:
                future.get(timeout=60)
        finally:
            producer.close(timeout=10)
            histories.close()
        return len(sent)

    def _collect(self, topic: str) -> Store:
        """The last value of each user in each partition."""
        path = self._folder / topic
        if path.exists():
            Store.destroy(path)
        store = Store(path, {"of": topic})
        with TopicReader(self._connection, poll_records=10_000, fetch_bytes=8 * 1024 * 1024) as reader:
            reader.assign(reader.partitions(topic))
            reader.to_beginning()
            for number, records in enumerate(_batched(reader.read_to_end(), 2_000)):
                store.write(
                    {_key(record.key, record.partition): record.value for record in records if record.key is not None}
                )
                self._progress(f"reading {topic}", number * 2_000 + len(records))
        return store

    def _move(self, topic: str, store: Store, join: Callable[[list[bytes]], bytes]) -> int:
        """Write each user's joined value to the home partition, and delete the others. Returns how many changed."""
        producer = bulk_producer(
            self._connection,
            self._plan.message_bytes,
            linger_ms=20,
            transactional_id=f"{self._plan.prefix}freshet-repartition",
            transaction_timeout_ms=_TRANSACTION_SECONDS * 1000,
        )
        producer.init_transactions()
        changed = 0
        try:
            for users in _batched(self._changes(store, join), _USERS_PER_TRANSACTION):
                producer.begin_transaction()
                for user, home, value, others in users:
                    if value is not None:
                        producer.send(topic, value, key=user, partition=home)
                    for number in others:
                        producer.send(topic, None, key=user, partition=number, headers=[(MOVED, b"")])
                producer.flush()
                self._crash("sent")
                producer.commit_transaction()
                changed += len(users)
                self._progress(f"moving {topic}", changed)
        finally:
            producer.close(timeout=10)
        return changed

    def _changes(
        self, store: Store, join: Callable[[list[bytes]], bytes]
    ) -> Iterator[tuple[bytes, int, bytes | None, list[int]]]:
        """(user, home partition, value to write there, or None if it is there already, partitions to delete from)."""
        for user, values in _by_user(store):
            home = home_of(user, self._plan.partitions)
            joined = join(list(values.values()))
            others = [number for number in values if number != home]
            if others or values.get(home) != joined:
                yield user, home, None if values.get(home) == joined else joined, others

    def _merged(self, values: list[bytes]) -> bytes:
        if len(values) == 1:
            return values[0]
        history = EMPTY
        for value in values:
            history = merge(history, codec.decode(value), self._limit)
        return codec.encode(history)


def _batched(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch


def _newest(values: list[bytes]) -> bytes:
    return max(values, key=lambda value: msgspec.json.decode(value, type=_Published).published)


def _key(user: bytes, partition: int) -> bytes:
    """A key that sorts by user. The length comes first, so that the keys of one user are always adjacent."""
    return len(user).to_bytes(4, "big") + user + partition.to_bytes(4, "big")


def _by_user(store: Store) -> Iterator[tuple[bytes, dict[int, bytes]]]:
    for prefix, rows in groupby(store.items(), key=lambda row: row[0][:-4]):
        yield prefix[4:], {int.from_bytes(key[-4:], "big"): value for key, value in rows}
