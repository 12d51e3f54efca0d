"""How often every item is met, with decay, and when it was first met: counted from all users' histories.

Interactions that a newer version of a history adds are counted when it arrives. A store keeps the counts over a
restart, with the offsets of `histories` up to which they go, so that records which are read again are not counted
again. The counts are saved now and then: a killed process loses those since the last save, which decay anyway. Without
saved counts, as after the upgrade from a release that had none, the stored histories are counted first, page by page.

    p            decayed counts (`state.popularity`)
    o            offset per partition up to which histories are counted, MessagePack
    f item       event time at which the item was first met, little-endian int64
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from heapq import nlargest
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from state.codec import CodecError, read
from state.popularity import Popularity
from state.store import Store, StoreMemory, StoreUnusable
from stream.wire.meaning import EventKinds

__all__ = ["Change", "ItemCounts"]

log = logging.getLogger(__name__)

_RANKED = 20_000  # items that can be listed as trending
_PAGE = 100  # stored histories that are read at once
_HISTORIES = b"h"  # the prefix of the keys of histories in the trainer's view
_SAVE_SECONDS = 30.0
_COUNTS, _OFFSETS, _FIRST = b"p", b"o", b"f"
_TIME = struct.Struct("<q")


class Change(NamedTuple):
    """A record of `histories`, with the value that it replaces."""

    offset: int
    key: bytes  # of the history in the view's store
    before: bytes | None
    after: bytes | None


class ItemCounts:
    """Single-threaded. `store_of` gives the view's store of a partition as it is now."""

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, str],
        memory: StoreMemory,
        half_life_ms: int,
        kinds: EventKinds,
        partitions: Iterable[int],
        store_of: Callable[[int], Store],
    ) -> None:
        self.popularity = Popularity(half_life_ms, kept=_RANKED)
        self.events = 0  # counted by this process
        self._kinds, self._store_of = kinds, store_of
        identity = {**identity, "content": "item counts", "half_life_ms": str(half_life_ms)}
        self._store = _opened(path, identity, memory)
        self.first_ms = {key[1:].decode(): _TIME.unpack(value)[0] for key, value in self._store.items(_FIRST, b"g")}
        self._new: set[str] = set()  # first met since the last save
        self._offsets: dict[int, int] = {}
        self._walks: dict[int, bytes] = {}  # by partition: the last key that was counted
        self._save_due = time.monotonic() + _SAVE_SECONDS
        counts, offsets = self._store.get_many([_COUNTS, _OFFSETS])
        if counts is None or offsets is None:
            self._walks = dict.fromkeys(partitions, _HISTORIES)
        else:
            self.popularity.load(counts)
            self._offsets = msgspec.msgpack.decode(offsets, type=dict[int, int])

    @property
    def complete(self) -> bool:
        """Whether all stored histories are counted."""
        return not self._walks

    def changed(self, number: int, changes: Iterable[Change]) -> None:
        """Count the interactions that these records of a partition add. Call it before the view stores them."""
        counted, walked = self._offsets.get(number, 0), self._walks.get(number)
        for offset, key, before, after in changes:
            if offset < counted:
                continue
            self._offsets[number] = offset + 1
            if after is not None and (walked is None or key <= walked):  # else the walk will count it
                self._count(after, 0 if before is None else _newest_ms(before))

    def turn(self, seconds: float) -> None:
        """Count stored histories for about this time, and save when it is due."""
        until = time.monotonic() + seconds
        while self._walks and time.monotonic() < until:
            number, after = next(iter(self._walks.items()))
            page = [row for row in self._store_of(number).page(after, _PAGE) if row[0].startswith(_HISTORIES)]
            for _, value in page:
                self._count(value, 0)
            if len(page) < _PAGE:
                del self._walks[number]
            else:
                self._walks[number] = page[-1][0]
        self.popularity.refresh()
        if time.monotonic() >= self._save_due:
            self._save()

    def newest(self, count: int, since_ms: int) -> list[tuple[str, int]]:
        """(item, event time when it was first met) of at most `count` items first met after `since_ms`, the latest
        first."""
        found = nlargest(count, self.first_ms.items(), key=lambda met: (met[1], met[0]))
        return [(item, first_ms) for item, first_ms in found if first_ms > since_ms]

    def _count(self, value: bytes, newer_than_ms: int) -> None:
        try:
            history = read(value)
        except CodecError as error:  # the view also ignores such a history
            log.error("a history is not counted: %s", error)
            return
        times_ms = np.frombuffer(history.times_ms, dtype="<i8")
        weights = np.frombuffer(history.strengths, dtype="<f4")
        kinds = np.frombuffer(history.item_kinds, dtype="<u2") if history.item_kinds else np.zeros(len(times_ms), int)
        for place in range(int((times_ms > newer_than_ms).sum())):  # newest first
            kind = history.kinds[kinds[place]] if history.kinds else ""
            if self._kinds.positive(kind, float(weights[place])):
                item, time_ms = history.items[place], int(times_ms[place])
                self.popularity.add(item, time_ms, self._kinds[kind].strength)
                self.events += 1
                if time_ms < self.first_ms.get(item, time_ms + 1):
                    self.first_ms[item] = time_ms
                    self._new.add(item)

    def _save(self) -> None:
        """Save, but only after the walk is over: partial counts would be taken for complete ones."""
        self._save_due = time.monotonic() + _SAVE_SECONDS
        if self._walks:
            return
        values: dict[bytes, bytes | None] = {
            _FIRST + item.encode(): _TIME.pack(self.first_ms[item]) for item in self._new
        }
        # The counts come last: a batch that is too large for one write is split, and first meetings without counts are
        # harmless.
        values |= {_COUNTS: self.popularity.dump(), _OFFSETS: msgspec.msgpack.encode(self._offsets)}
        self._store.write(values)
        self._new.clear()

    def close(self) -> None:
        try:
            self._save()
        finally:
            self._store.close()


def _newest_ms(value: bytes) -> int:
    try:
        return read(value).newest_ms
    except CodecError:
        return 0


def _opened(path: Path, identity: Mapping[str, str], memory: StoreMemory) -> Store:
    try:
        return Store(path, identity, memory)
    except StoreUnusable as error:
        log.warning("items are counted again: %s", error)
        Store.destroy(path)
        return Store(path, identity, memory)
