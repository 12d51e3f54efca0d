"""The trainer's materialized view of `histories`, and which users changed since the model last learnt.

One RocksDB per partition, kept in `next_offset` step with the topic; in each:

    h hash user   the user's history, encoded. The hash puts users in an order that has nothing to do with who they
                  are, so any run of neighbours is a random sample, read in one sequential scan.
    c user        why the user counts as changed: see `Changed`

Changes are part of the same atomic write as the histories they stem from, so a restart neither forgets one nor counts
one twice. They go when a round that learnt them was published (`mark_learnt`), not before.
"""

from __future__ import annotations

import logging
import struct
import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import blake2b
from itertools import chain, islice
from operator import neg
from pathlib import Path
from typing import NamedTuple

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from state.codec import CodecError, UnknownVersion, decode
from state.history import History
from state.store import Store, StoreMemory, StoreUnusable
from stream.clients.admin import offset_range, topic_identity
from stream.clients.connection import KafkaConnection
from stream.wire.changelog import changelog_reader, open_store

__all__ = ["Changed", "HistoryView", "PartitionView"]

log = logging.getLogger(__name__)

LAYOUT = "1"
_HASH_BYTES = 8
_HISTORY, _AFTER_HISTORY, _CHANGED, _AFTER_CHANGED = b"h", b"i", b"c", b"d"
_marker = struct.Struct("<qqi")
_IDLE_STAMP_MS = 60_000  # how often an idle store notes that it is level


class Changed(NamedTuple):
    """Why a user's history has something to teach."""

    offset: int  # of the user's last record
    seen_ms: int  # the newest interaction that the last learnt round knew; 0 for a new user
    new: int  # interactions after `seen_ms`


def _history_key(user: bytes) -> bytes:
    return _HISTORY + blake2b(user, digest_size=_HASH_BYTES).digest() + user


class PartitionView:
    """The users of one partition. Knows no Kafka; `store` is owned by this object from now on.

    While records below `rebuild_until` arrive, the store is being rebuilt under a model that already learnt everything
    up to `fitted_until_ms`: of a user met there, only later interactions count as new.
    """

    def __init__(self, store: Store, fitted_until_ms: int = 0, rebuild_until: int = 0) -> None:
        self.store = store
        self.changed: dict[bytes, Changed] = {}
        self.new_interactions = 0
        self._fitted_until_ms, self._rebuild_until = fitted_until_ms, rebuild_until
        for key, value in store.items(_CHANGED, _AFTER_CHANGED):
            self.changed[key[1:]] = Changed(*_marker.unpack(value))
        self.new_interactions = sum(changed.new for changed in self.changed.values())

    def apply(self, records: Iterable[tuple[int, bytes, bytes | None]], next_offset: int, now_ms: int) -> None:
        """Take in (offset, user, encoded history or None) in offset order, durably, and step to `next_offset`.

        A null or empty history removes the user. Raises `UnknownVersion` when a newer Freshet wrote the topic.
        """
        last = {user: (offset, value) for offset, user, value in records}
        histories = {user: _decode(user, value) for user, (_, value) in last.items()}
        unmarked = [user for user in last if user not in self.changed]
        old = dict(zip(unmarked, self._read(unmarked), strict=True))
        # Changes before histories: a batch too large for one write may be cut, and a history whose change is missing
        # would be taken for learnt when the records are read again.
        changes: dict[bytes, bytes | None] = {}
        values: dict[bytes, bytes | None] = {}
        for user, (offset, value) in last.items():
            history = histories[user]
            values[_history_key(user)] = None if history is None else value
            if history is None:
                self._forget_change(user, changes)
                continue
            if user in self.changed:
                seen_ms = self.changed[user].seen_ms
            else:
                before = old[user]
                if before == history:
                    continue
                seen_ms = 0 if before is None else before.newest_ms
                if offset < self._rebuild_until:
                    seen_ms = max(seen_ms, self._fitted_until_ms)
                    if history.newest_ms <= seen_ms:
                        continue
            self._mark(user, Changed(offset, seen_ms, _newer(history, seen_ms)), changes)
        self.store.write({**changes, **values}, next_offset, now_ms)

    def _mark(self, user: bytes, changed: Changed, changes: dict[bytes, bytes | None]) -> None:
        before = self.changed.get(user)
        self.new_interactions += changed.new - (before.new if before else 0)
        self.changed[user] = changed
        changes[_CHANGED + user] = _marker.pack(*changed)

    def _forget_change(self, user: bytes, changes: dict[bytes, bytes | None]) -> None:
        before = self.changed.pop(user, None)
        if before is not None:
            self.new_interactions -= before.new
            changes[_CHANGED + user] = None

    def _read(self, users: Collection[bytes]) -> list[History | None]:
        stored = self.store.get_many([_history_key(user) for user in users])
        return [None if value is None else decode(value) for value in stored]

    def histories(self, users: Collection[bytes]) -> dict[bytes, History]:
        """Of those of `users` that are there."""
        found = zip(users, self._read(users), strict=True)
        return {user: _shared(history) for user, history in found if history is not None}

    def sample(self, count: int, start: bytes, leave_out: Collection[bytes] = ()) -> dict[bytes, History]:
        """`count` users (fewer when there are fewer) not in `leave_out`, picked by the random bytes `start`."""
        first = _HISTORY + start[:_HASH_BYTES]
        around = chain(self.store.items(first, _AFTER_HISTORY), self.store.items(_HISTORY, first))
        others = ((key[1 + _HASH_BYTES :], value) for key, value in around)
        kept = ((user, value) for user, value in others if user not in leave_out)
        return {user: _shared(decode(value)) for user, value in islice(kept, count)}

    def mark_learnt(self, next_offset: int, fitted_until_ms: int) -> None:
        """A model that learnt the records below `next_offset`, with interactions up to `fitted_until_ms`, is live.

        Doing it twice changes nothing. Users that changed again since stay, with only what came later as new.
        """
        changes: dict[bytes, bytes | None] = {}
        again = [user for user, changed in self.changed.items() if changed.offset >= next_offset]
        for user in [user for user, changed in self.changed.items() if changed.offset < next_offset]:
            self._forget_change(user, changes)
        for user, history in self.histories(again).items():
            before = self.changed[user]
            seen_ms = max(before.seen_ms, fitted_until_ms)
            self._mark(user, Changed(before.offset, seen_ms, _newer(history, seen_ms)), changes)
        self.store.write(changes)


def _shared(history: History) -> History:
    """With one string per item in memory, however many histories name it."""
    return history._replace(items=tuple(map(sys.intern, history.items)))


def _decode(user: bytes, value: bytes | None) -> History | None:
    if value is None:
        return None
    try:
        history = decode(value)
    except UnknownVersion:
        raise
    except CodecError as error:
        log.error("user %s: not a history, taken as absent: %s", user[:80], error)
        return None
    return history if history.items else None


def _newer(history: History, seen_ms: int) -> int:
    return bisect_left(history.times_ms, -seen_ms, key=neg)  # times fall from the newest on


class HistoryView:
    """All partitions, followed without a consumer group. Single-threaded: one owner calls everything.

    A store that is missing, corrupted or foreign is rebuilt from the topic, also in mid-flight. `poll` reads what has
    come; the view is `caught_up` once it has reached the topic's end as it was when the view was opened.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        admin: KafkaAdminClient,
        topic: str,
        folder: Path,
        memory: StoreMemory,
        *,
        tombstone_ms: int,
        fitted_until_ms: int,
        clock_ms: Callable[[], int],
    ) -> None:
        self._admin, self.topic, self._folder, self._memory = admin, topic, folder, memory
        self._tombstone_ms, self._fitted_until_ms, self._clock_ms = tombstone_ms, fitted_until_ms, clock_ms
        self._identity = topic_identity(admin, topic) | {"view": "trainer", "layout": LAYOUT}
        self._ends: dict[int, int] = {}  # the topic's end when each partition was opened
        self._stamped_ms = 0
        self.partitions: dict[int, PartitionView] = {}
        self._reader = changelog_reader(connection)
        numbers = range(int(self._identity["partitions"]))
        self._reader.assign([TopicPartition(topic, number) for number in numbers])
        try:
            for number in numbers:
                self._open(number)
        except BaseException:
            self.close()
            raise

    def _open(self, number: int) -> None:
        tp = TopicPartition(self.topic, number)
        low, end = offset_range(self._admin, tp)
        identity = self._identity | {"partition": str(number)}
        path = self._folder / str(number)
        store = open_store(path, identity, self._memory, low, end, self._tombstone_ms, self._clock_ms())
        start = store.next_offset
        try:
            view = PartitionView(store, self._fitted_until_ms, end if start is None else 0)
        except StoreUnusable as error:
            log.warning("%s/%d: rebuilding: %s", self.topic, number, error)
            store.close()
            Store.destroy(path)
            view = PartitionView(Store(path, identity, self._memory), self._fitted_until_ms, end)
            start = None
        self.partitions[number], self._ends[number] = view, end
        self._reader.seek(tp, low if start is None else max(start, low))
        where = "the beginning" if start is None else f"offset {start}"
        log.info("view of %s/%d: from %s to %d, %d users changed", *tp, where, end, len(view.changed))

    def _rebuild(self, number: int, error: StoreUnusable) -> None:
        log.warning("view of %s/%d: rebuilding: %s", self.topic, number, error)
        store = self.partitions.pop(number).store
        store.close()
        Store.destroy(store.path)
        self._open(number)

    @property
    def caught_up(self) -> bool:
        return all(
            self._reader.position(TopicPartition(self.topic, number)) >= end for number, end in self._ends.items()
        )

    @property
    def changed_users(self) -> int:
        return sum(len(view.changed) for view in self.partitions.values())

    @property
    def new_interactions(self) -> int:
        return sum(view.new_interactions for view in self.partitions.values())

    def next_offsets(self) -> dict[int, int]:
        """The first offset that the view does not cover, per partition."""
        return {number: view.store.next_offset or 0 for number, view in self.partitions.items()}

    def poll(self, timeout_ms: int) -> int:
        """Take in what arrived, waiting up to `timeout_ms` for the first record; returns how many records.

        Raises `OffsetOutOfRangeError` when the topic lost what was to come next: a new view rebuilds.
        """
        polled = self._reader.poll(timeout_ms / 1000)
        now_ms = self._clock_ms()
        for tp, records in polled.items():
            keyed = [(record.offset, record.key, record.value) for record in records if record.key is not None]
            try:
                self.partitions[tp.partition].apply(keyed, self._reader.position(tp), now_ms)
            except StoreUnusable as error:
                self._rebuild(tp.partition, error)
        if now_ms - self._stamped_ms > _IDLE_STAMP_MS:
            self._stamped_ms = now_ms
            for number, view in self.partitions.items():
                # Also moves idle stores past transaction markers.
                view.store.write({}, self._reader.position(TopicPartition(self.topic, number)), now_ms)
        return sum(map(len, polled.values()))

    def take_changed(self, limit: int) -> dict[bytes, tuple[History, Changed]]:
        """Changed users and their histories; at most `limit`, those with the most recent records."""
        found: dict[bytes, tuple[History, Changed]] = {}
        share = -(-limit // len(self.partitions))
        for number, view in list(self.partitions.items()):
            users = sorted(view.changed, key=lambda user: -view.changed[user].offset)[:share]
            try:
                found.update((user, (h, view.changed[user])) for user, h in view.histories(users).items())
            except StoreUnusable as error:
                self._rebuild(number, error)
        return found

    def sample(self, count: int, start: bytes, leave_out: Mapping[bytes, object]) -> dict[bytes, History]:
        """About `count` other users, picked by the random bytes `start`."""
        found: dict[bytes, History] = {}
        share = -(-count // len(self.partitions))
        for number, view in list(self.partitions.items()):
            try:
                found |= view.sample(share, start, leave_out.keys())
            except StoreUnusable as error:
                self._rebuild(number, error)
        return found

    def mark_learnt(self, next_offsets: Mapping[int, int], fitted_until_ms: int) -> None:
        """See `PartitionView.mark_learnt`."""
        self._fitted_until_ms = fitted_until_ms
        for number, next_offset in next_offsets.items():
            if number in self.partitions:
                try:
                    self.partitions[number].mark_learnt(next_offset, fitted_until_ms)
                except StoreUnusable as error:
                    self._rebuild(number, error)

    @property
    def identity(self) -> str:
        """The topic whose offsets `next_offsets` and `mark_learnt` speak of."""
        return self._identity["topic_id"]

    def bytes_on_disk(self) -> int:
        return sum(view.store.bytes_on_disk() for view in self.partitions.values())

    def pending_compaction_bytes(self) -> int:
        return sum(view.store.pending_compaction_bytes() for view in self.partitions.values())

    def close(self) -> None:
        self._reader.close()
        for view in self.partitions.values():
            view.store.close()
        self.partitions.clear()
