"""The last list of every user: the next event judges it, and no older list may replace it.

There is one store for each partition of `recommendations`. The store follows its partition: `next_offset` is the first
offset that is not known here. A scorer writes the lists that it published itself. Lists that others published before it
had the partition, or by mistake after that, are read from the topic (`stream.scorer.list_follower`).

    u user            32 bytes: version of the history, offset of the list; then the list, MessagePack
    f hash of user    24 bytes: time of forgetting, offset of the tombstone, clock when it was noted; nothing else is
                      kept of a forgotten user

The stores of partitions that moved away stay for a while, because a partition often comes back, and then little has to
be read. After that they are destroyed: a store that follows its partition no longer would keep the lists of users who
ask to be forgotten.
"""

from __future__ import annotations

import struct
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from state.store import Store, StoreConfig, StoreMemory
from stream.scorer.prequential import ShownList
from stream.wire.changelog import open_store
from stream.wire.history_version import HistoryVersion

__all__ = ["LastList", "Offsets", "PartitionLists", "ShownLists"]

_HEAD, _FORGOTTEN = struct.Struct("<qqqq"), struct.Struct("<qqq")
_UNKNOWN = -1  # time of forgetting of a list without a version
_PAGE = 1000  # forgotten users looked at together


class LastList(NamedTuple):
    """The newest known list of a user."""

    version: HistoryVersion
    offset: int  # on `recommendations`
    encoded: bytes  # `ShownList`; empty when the user was forgotten

    @property
    def shown(self) -> ShownList | None:
        return ShownList.decode(self.encoded) if self.encoded else None

    @classmethod
    def without_version(cls, as_of_ms: int, offset: int, encoded: bytes) -> LastList:
        """A list of the first release, or a tombstone that another program wrote: it is taken for the newest."""
        return cls(HistoryVersion(_UNKNOWN, as_of_ms, 0), offset, encoded)


class Offsets(NamedTuple):
    """The offsets of lists that this scorer published on `recommendations`."""

    of_users: Mapping[bytes, int]
    ranges: Mapping[int, Sequence[tuple[int, int]]]  # by partition: first offset and the one after the last, in order


class PartitionLists:
    """Last lists of one partition's users. Several threads may use it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()  # a decision to write and the write are one step

    def get(self, users: Sequence[bytes]) -> list[LastList | None]:
        found = [
            None if value is None else _decode(value) for value in self.store.get_many([b"u" + user for user in users])
        ]
        missing = [place for place, last in enumerate(found) if last is None]
        if missing:
            marks = self.store.get_many([_mark(users[place]) for place in missing])
            for place, mark in zip(missing, marks, strict=True):
                if mark is not None:
                    forgotten_ms, offset, _ = _FORGOTTEN.unpack(mark)
                    found[place] = LastList(HistoryVersion(forgotten_ms, 0, 0), offset, b"")
        return found

    def put(self, lists: Mapping[bytes, LastList], ranges: Sequence[tuple[int, int]], now_ms: int) -> None:
        """Write the lists that this scorer published, in these ranges of offsets (`Offsets`). When another scorer wrote
        before one of the ranges, the next offset stays before it, because the records in between must still be read."""
        with self._lock:
            known = reached = self.store.next_offset
            for first, following in ranges:
                if reached is not None and first <= reached < following:
                    reached = following
            self._write(lists, None if reached == known else reached, now_ms)

    def take_in(self, read: Iterable[tuple[bytes, LastList]], now_ms: int) -> dict[bytes, LastList]:
        """Write lists that were read from the topic, in its order. Returns the newest list of each user whose last
        record on the topic is an older list, written by a scorer that had lost the partition."""
        read = list(read)
        with self._lock:
            users = list(dict.fromkeys(user for user, _ in read))
            known = dict(zip(users, self.get(users), strict=True))
            newer: dict[bytes, LastList] = {}
            overwritten: dict[bytes, LastList] = {}
            for user, last in read:
                before = known[user]
                if last.version.forgotten_ms == _UNKNOWN:
                    if before is not None and last.offset < before.offset:
                        continue
                    forgotten_ms = 0 if before is None else before.version.forgotten_ms
                    last = last._replace(version=last.version._replace(forgotten_ms=forgotten_ms))
                elif before is not None and last.version < before.version:
                    if last.offset > before.offset:
                        overwritten[user] = before
                    continue
                elif before is not None and last.offset < before.offset:
                    if last.version > before.version:
                        known[user] = newer[user] = overwritten[user] = last._replace(offset=before.offset)
                    continue
                known[user] = newer[user] = last
                overwritten.pop(user, None)
            self._write(newer, None, now_ms)
        return overwritten

    def reached(self, next_offset: int, now_ms: int) -> None:
        """Everything before this offset is known."""
        with self._lock:
            known = self.store.next_offset
            if known is None or known < next_offset:
                self.store.write({}, next_offset, now_ms)

    def _write(self, lists: Mapping[bytes, LastList], next_offset: int | None, now_ms: int) -> None:
        values: dict[bytes, bytes | None] = {}
        for user, (version, offset, encoded) in lists.items():
            if encoded:
                values[b"u" + user] = _HEAD.pack(*version, offset) + encoded
            else:
                values[b"u" + user] = None
                values[_mark(user)] = _FORGOTTEN.pack(version.forgotten_ms, offset, now_ms)
        self.store.write(values, next_offset, None if next_offset is None else now_ms)

    def page(self, after: bytes | None, count: int) -> list[tuple[bytes, LastList]]:
        """The first `count` users beyond `after`, of those who were not forgotten."""
        rows = self.store.page(b"u" + (after or b""), count)
        return [(key[1:], _decode(value)) for key, value in rows if key.startswith(b"u")]

    def purge(self, before_ms: int) -> None:
        """Drop the marks of users whose forgetting was noted before this moment of the clock."""
        after = b"f"
        while marks := [row for row in self.store.page(after, _PAGE) if row[0].startswith(b"f")]:
            old = [key for key, value in marks if _FORGOTTEN.unpack(value)[2] < before_ms]
            if old:
                self.store.write(dict.fromkeys(old))
            after = marks[-1][0]


class ShownLists:
    """The stores of all partitions of one scorer, below one folder."""

    def __init__(self, folder: Path, config: StoreConfig) -> None:
        self._folder, self._memory = folder, StoreMemory(config)
        self._partitions: dict[int, PartitionLists] = {}

    def open(
        self, number: int, identity: Mapping[str, str], low: int, end: int, tombstone_ms: int, now_ms: int
    ) -> PartitionLists:
        """Open the store of a partition. `low` is the first offset of the partition, `end` the offset after its last. A
        store whose `next_offset` is of no use any more is emptied."""
        path = self._folder / str(number)
        store = open_store(path, identity, self._memory, low, end, tombstone_ms, now_ms)
        lists = self._partitions[number] = PartitionLists(store)
        return lists

    def __getitem__(self, number: int) -> PartitionLists | None:
        return self._partitions.get(number)

    @property
    def on_disk(self) -> set[int]:
        """Numbers of the partitions that have a folder."""
        if not self._folder.is_dir():
            return set()
        return {int(path.name) for path in self._folder.iterdir() if path.name.isdigit()}

    def get(self, users: Iterable[tuple[int, bytes]]) -> dict[bytes, LastList]:
        """Last lists by user, for (partition, user) pairs; users without a list are left out."""
        by_partition: dict[int, list[bytes]] = defaultdict(list)
        for number, user in users:
            by_partition[number].append(user)
        found: dict[bytes, LastList] = {}
        for number, asked in by_partition.items():
            lists = self[number]
            if lists is not None:  # else the partition has just moved away
                found |= {user: last for user, last in zip(asked, lists.get(asked), strict=True) if last is not None}
        return found

    def destroy(self, number: int) -> None:
        """Remove a partition from the disk."""
        lists = self._partitions.pop(number, None)
        if lists is not None:
            lists.store.close()
        Store.destroy(self._folder / str(number))

    @property
    def stores(self) -> list[Store]:
        return [lists.store for lists in list(self._partitions.values())]

    def close(self) -> None:
        for store in self.stores:
            store.close()
        self._partitions.clear()


def _mark(user: bytes) -> bytes:
    return b"f" + blake2b(user, digest_size=16).digest()


def _decode(value: bytes) -> LastList:
    forgotten_ms, newest_ms, total_ms, offset = _HEAD.unpack_from(value)
    return LastList(HistoryVersion(forgotten_ms, newest_ms, total_ms), offset, value[_HEAD.size :])
