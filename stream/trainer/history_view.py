"""The trainer's materialized view of `histories`, and which users changed since the model last learnt.

There is one RocksDB per partition, whose `next_offset` says how much of the topic it holds. Its keys:

    h hash user   the user's history, encoded. The order of the hashes has nothing to do with who the users are, so any
                  run of neighbours is a random sample, read in one sequential scan.
    c, o          the users who changed: see `stream.trainer.changed_users`

A change is part of the same atomic write as the history that it stems from, so a restart neither loses a change nor
counts it twice. Changes are removed when a model that learnt them is published (`mark_learnt`), not before.
"""

from __future__ import annotations

import logging
import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
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
from stream.itemlists.counts import Change
from stream.trainer.changed_users import Batch, Changed, ChangedUsers, Offsets
from stream.wire.changelog import changelog_reader, open_store

__all__ = ["HistoryView", "PartitionView", "Taken"]

log = logging.getLogger(__name__)

LAYOUT = "1"
_HASH_BYTES = 8
_HISTORY, _AFTER_HISTORY = b"h", b"i"
_PAGE = 1_000  # users of a sample whose changes are read together
_LOOKED_AT = 20  # most users that are read for each wanted user of a sample
_IDLE_STAMP_MS = 60_000  # how often an idle store notes that it has reached the topic's end


class Taken(NamedTuple):
    """The changed users that a round learns from, and those that it leaves."""

    users: dict[bytes, tuple[History, Changed]]
    left: dict[int, Offsets]  # by partition: the offsets of the last records of changed users who were not taken


def _history_key(user: bytes) -> bytes:
    return _HISTORY + blake2b(user, digest_size=_HASH_BYTES).digest() + user


class PartitionView:
    """The users of one partition, without Kafka. The caller closes `store`.

    A store that starts empty is rebuilt from the records below `rebuild_until`. The live model has already learnt the
    interactions up to `fitted_until_ms` in these records, except those of users whose last records lie in `left`. So of
    all other users only later interactions count as new. `watch` is called with all changes before they are stored.
    """

    def __init__(
        self,
        store: Store,
        fitted_until_ms: int = 0,
        rebuild_until: int = 0,
        left: Offsets | None = None,
        watch: Callable[[list[Change]], None] = lambda changes: None,
    ) -> None:
        self.store, self._watch = store, watch
        self.changed = ChangedUsers(store)
        self._fitted_until_ms, self._rebuild_until, self._left = fitted_until_ms, rebuild_until, left

    @property
    def new_interactions(self) -> int:
        return self.changed.new_interactions

    def apply(self, records: Iterable[tuple[int, bytes, bytes | None]], next_offset: int, now_ms: int) -> None:
        """Take in (offset, user, encoded history or None) in offset order, durably, and step to `next_offset`.

        A null or empty history removes the user. Raises `UnknownVersion` when a newer Freshet wrote the topic.
        """
        last = {user: (offset, value) for offset, user, value in records}
        histories = {user: _decode(user, value) for user, (_, value) in last.items()}
        marked = self.changed.get(list(last))
        stored = dict(zip(last, self.store.get_many([_history_key(user) for user in last]), strict=True))
        self._watch([Change(offset, _history_key(user), stored[user], value) for user, (offset, value) in last.items()])
        # Changes are written before histories: a crash may cut a batch that is too large for one write, and when the
        # records are read again, a stored history without its change would count as learnt.
        changes: Batch = {}
        values: Batch = {}
        for user, (offset, value) in last.items():
            history, mark = histories[user], marked.get(user)
            values[_history_key(user)] = None if history is None else value
            if history is None:
                if mark is not None:
                    self.changed.put(user, mark, None, changes)
                continue
            if mark is not None:
                seen_ms = mark.seen_ms
            else:
                known = stored[user]
                before = None if known is None else decode(known)
                if before == history:
                    continue
                seen_ms = 0 if before is None else before.newest_ms
                if offset < self._rebuild_until:
                    seen_ms = max(seen_ms, self._fitted_until_ms)
                    left = self._left is not None and self._left[0] <= offset < self._left[1]
                    if history.newest_ms <= seen_ms and not left:
                        continue
            self.changed.put(user, mark, Changed(offset, seen_ms, _newer(history, seen_ms)), changes)
        self.store.write({**changes, **values}, next_offset, now_ms)

    def _read(self, users: Collection[bytes]) -> list[History | None]:
        stored = self.store.get_many([_history_key(user) for user in users])
        return [None if value is None else decode(value) for value in stored]

    def histories(self, users: Collection[bytes]) -> dict[bytes, History]:
        """The histories of those of `users` who have one."""
        found = zip(users, self._read(users), strict=True)
        return {user: _shared(history) for user, history in found if history is not None}

    def take(self, most: int) -> tuple[dict[bytes, tuple[History, Changed]], Offsets | None]:
        """As `ChangedUsers.take`, with the users' histories."""
        changed, left = self.changed.take(most)
        histories = self.histories(list(changed))
        return {user: (history, changed[user]) for user, history in histories.items()}, left

    def sample(self, count: int, start: bytes, unchanged: bool = False) -> dict[bytes, History]:
        """Up to `count` users, picked by the random bytes `start`. With `unchanged`, only users who have not changed;
        there may be few of them, so the number of users that are looked at is limited."""
        first = _HISTORY + start[:_HASH_BYTES]
        around = chain(self.store.items(first, _AFTER_HISTORY), self.store.items(_HISTORY, first))
        users = ((key[1 + _HASH_BYTES :], value) for key, value in islice(around, _LOOKED_AT * count))
        found: dict[bytes, History] = {}
        while len(found) < count and (page := list(islice(users, _PAGE))):
            changed = self.changed.get([user for user, _ in page]) if unchanged else {}
            kept = ((user, value) for user, value in page if user not in changed)
            found |= {user: _shared(decode(value)) for user, value in islice(kept, count - len(found))}
        return found

    def mark_learnt(self, next_offset: int, fitted_until_ms: int, left: Offsets | None = None) -> None:
        """A model is live that learnt the records below `next_offset`, except those in `left`, with interactions up to
        `fitted_until_ms`.

        A second call with the same values changes nothing. Users who changed again since then stay changed, but only
        their interactions after `fitted_until_ms` count as new.
        """
        self._fitted_until_ms, self._left = fitted_until_ms, left
        changes: Batch = {}
        self.changed.learnt(next_offset, left, changes)
        again = self.changed.since(next_offset)
        for user, history in self.histories(list(again)).items():
            before = again[user]
            seen_ms = max(before.seen_ms, fitted_until_ms)
            self.changed.put(user, before, Changed(before.offset, seen_ms, _newer(history, seen_ms)), changes)
        self.store.write(changes)


def _shared(history: History) -> History:
    """The same history, with interned item names: memory holds one string per item for all histories."""
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
    return bisect_left(history.times_ms, -seen_ms, key=neg)  # times run from newest to oldest


class HistoryView:
    """All partitions, followed without a consumer group. Single-threaded: one owner calls everything.

    A store that is missing, corrupted or foreign is rebuilt from the topic, also while the view is in use. `poll` reads
    new records; the view is `caught_up` once it has reached the end that the topic had when the view was opened.
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
        left: Mapping[int, Offsets],
        clock_ms: Callable[[], int],
        watch: Callable[[int, list[Change]], None] = lambda number, changes: None,
    ) -> None:
        self._watch = watch
        self._admin, self.topic, self._folder, self._memory = admin, topic, folder, memory
        self._tombstone_ms, self._clock_ms = tombstone_ms, clock_ms
        self._fitted_until_ms, self._left = fitted_until_ms, left  # of the live model: see `mark_learnt`
        self._identity = topic_identity(admin, topic) | {"view": "trainer", "layout": LAYOUT}
        self.identity = self._identity["topic_id"]  # id of the topic that all offsets refer to
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
        left, watch = self._left.get(number), partial(self._watch, number)
        try:
            rebuild_until = end if start is None else 0
            view = PartitionView(store, self._fitted_until_ms, rebuild_until, left, watch)
        except StoreUnusable as error:
            log.warning("%s/%d: rebuilding: %s", self.topic, number, error)
            store.close()
            Store.destroy(path)
            store = Store(path, identity, self._memory)
            view = PartitionView(store, self._fitted_until_ms, end, left, watch)
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
        """Take in new records, waiting up to `timeout_ms` for the first one; returns how many there were.

        Raises `OffsetOutOfRangeError` when the topic has lost the next record: open a new view then, which rebuilds.
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

    def take_changed(self, limit: int) -> Taken:
        """Changed users and their histories: about `limit` users, the same number from each partition."""
        taken = Taken({}, {})
        share = -(-limit // len(self.partitions))
        for number, view in list(self.partitions.items()):
            next_offset = view.store.next_offset or 0
            try:
                users, left = view.take(share)
            except StoreUnusable as error:
                self._rebuild(number, error)
                users, left = {}, (0, next_offset)
            taken.users.update(users)
            if left is not None:
                taken.left[number] = left
        return taken

    def sample(self, count: int, start: bytes, unchanged: bool = False) -> dict[bytes, History]:
        """About `count` users, picked by the random bytes `start`; see `PartitionView.sample`."""
        found: dict[bytes, History] = {}
        share = -(-count // len(self.partitions))
        for number, view in list(self.partitions.items()):
            try:
                found |= view.sample(share, start, unchanged)
            except StoreUnusable as error:
                self._rebuild(number, error)
        return found

    def mark_learnt(
        self, next_offsets: Mapping[int, int], fitted_until_ms: int, left: Mapping[int, Offsets] | None = None
    ) -> None:
        """See `PartitionView.mark_learnt`."""
        self._fitted_until_ms, self._left = fitted_until_ms, left or {}
        for number, next_offset in next_offsets.items():
            if number in self.partitions:
                try:
                    self.partitions[number].mark_learnt(next_offset, fitted_until_ms, self._left.get(number))
                except StoreUnusable as error:
                    self._rebuild(number, error)

    def close(self) -> None:
        self._reader.close()
        for view in self.partitions.values():
            view.store.close()
        self.partitions.clear()
