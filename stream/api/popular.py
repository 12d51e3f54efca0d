"""The items that are popular among the users of this instance: the answer for a user of whom no list is known.

Interactions are counted from histories: first from the stored histories of each new partition, one page at a time, then
from the entries that later versions of a history add. Users are spread over partitions by a hash, so the users of some
partitions are a fair sample of all. The counts of partitions that moved away stay, and decay as all counts do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping

from kafka import TopicPartition

from state import codec
from state.history import EMPTY, History
from state.popularity import Popularity
from state.store import Store
from stream.wire.meaning import ALL_ALIKE, EventKinds

__all__ = ["PopularItems"]

log = logging.getLogger(__name__)

_PAGE = 100  # stored histories that are counted in one go
_MOST_STORED = 100_000  # stored histories of a new partition that are counted: enough to rank popular items
_SHOWN = 2000  # items that can be listed
_REFRESH_SECONDS = 1.0


class _Walk:
    """A pass over a partition's stored histories."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.after: bytes | None = None  # keys up to this one are counted
        self.left = _MOST_STORED


class PopularItems:
    """One thread counts, any thread calls `top`."""

    def __init__(self, half_life_ms: int, kinds: EventKinds = ALL_ALIKE) -> None:
        self._popularity, self._kinds = Popularity(half_life_ms, kept=_SHOWN), kinds
        self._walks: dict[TopicPartition, _Walk] = {}
        self._refresh_due = 0.0
        self._ranked: tuple[tuple[str, float], ...] = ()

    def top(self, exclude: Collection[str], count: int) -> list[tuple[str, float]]:
        """The `count` most popular items outside `exclude`, with their decayed counts."""
        found = []
        for item, weight in self._ranked:
            if item not in exclude:
                found.append((item, weight))
                if len(found) == count:
                    break
        return found

    @property
    def newest_ms(self) -> int:
        """Event time of the newest interaction that was counted."""
        return self._popularity.newest_ms

    def partition_came(self, tp: TopicPartition, store: Store) -> None:
        self._walks[tp] = _Walk(store)

    def partition_went(self, tp: TopicPartition) -> None:
        """Call this before the partition's store is closed."""
        self._walks.pop(tp, None)

    def changed(
        self, tp: TopicPartition, before: Mapping[bytes, bytes | None], after: Mapping[bytes, bytes | None]
    ) -> None:
        """Count changed histories: `before` are the values that were stored, `after` the new ones."""
        walk = self._walks.get(tp)
        for user, value in after.items():
            if value is None or (walk is not None and (walk.after is None or user > walk.after)):
                continue  # the pass over the stored histories will come to this one
            old = before.get(user)
            self._count(value, EMPTY if old is None else _decoded(old))

    def turn(self) -> None:
        """Count a page of the stored histories of each new partition, and rank again when it is time."""
        for tp, walk in list(self._walks.items()):
            page = walk.store.page(walk.after, _PAGE)
            for _, value in page:
                self._count(value, EMPTY)
            walk.left -= len(page)
            if len(page) < _PAGE or walk.left <= 0:
                del self._walks[tp]
            else:
                walk.after = page[-1][0]
        now = time.monotonic()
        if now >= self._refresh_due or not self._ranked:
            self._refresh_due = now + _REFRESH_SECONDS
            self._popularity.refresh()
            self._ranked = tuple(self._popularity.top((), _SHOWN))

    def _count(self, value: bytes, before: History) -> None:
        history = _decoded(value)
        for place, (item, time_ms, weight) in enumerate(
            zip(history.items, history.times_ms, history.strengths, strict=True)
        ):
            if time_ms <= before.newest_ms:
                break  # newest first
            kind = history.kinds[place] if history.kinds else ""
            if self._kinds.positive(kind, weight):
                self._popularity.add(item, time_ms, self._kinds[kind].strength)


def _decoded(value: bytes) -> History:
    try:
        return codec.decode(value)
    except codec.CodecError as error:  # such a history is not shown either
        log.error("a history is not counted: %s", error)
        return EMPTY
