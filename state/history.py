"""A user's history: a join-semilattice that duplicates, replays and reordering cannot corrupt.

A history maps each item to the time and strength of its last interaction and keeps the newest `limit` items.
`merge` takes the later entry per item, then the newest `limit` by (time, item). Both steps pick maxima of total
orders, so

    merge(a, b) == merge(b, a)                        commutative: the order of arrival does not matter
    merge(merge(a, b), c) == merge(a, merge(b, c))    associative: neither does batching
    merge(a, a) == a                                  idempotent: nor does delivering twice

Truncation is safe because an entry that falls out has `limit` newer items before it, and those only move up.
Forgetting fits the same order: `forgotten_ms` only grows and removes every entry at or before it.

Event time is integer milliseconds since 1970 UTC everywhere; `_ms` marks it. Strengths are float32 values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["EMPTY", "Entry", "History", "merge", "merge_entries"]


class Entry(NamedTuple):
    """The last interaction with one item. Tuples compare by (time, item, strength), which is the order of a history."""

    time_ms: int
    item: str
    strength: float


class History(NamedTuple):
    """Entries as three parallel columns, newest first by (time, item); each item appears once."""

    items: tuple[str, ...] = ()
    times_ms: tuple[int, ...] = ()
    strengths: tuple[float, ...] = ()
    forgotten_ms: int = 0  # interactions at or before this time are erased and stay erased

    def entries(self) -> Iterable[Entry]:
        return map(Entry, self.times_ms, self.items, self.strengths)

    @property
    def newest_ms(self) -> int:
        """Event time of the newest interaction; 0 when there is none."""
        return self.times_ms[0] if self.times_ms else 0


EMPTY = History()


def merge(a: History, b: History, limit: int) -> History:
    """The join of two histories, bounded to the newest `limit` items. Returns `a` itself when `b` adds nothing."""
    return merge_entries(a, b.entries(), limit, b.forgotten_ms)


def merge_entries(history: History, entries: Iterable[Entry], limit: int, forgotten_ms: int = 0) -> History:
    """`history` joined with loose entries and a time of forgetting.

    Returns the same object when nothing changed, so `is` tells a duplicate from news.

    >>> merge_entries(EMPTY, [Entry(1, "a", 1.0), Entry(2, "b", 1.0), Entry(3, "a", 1.0)], limit=2)
    History(items=('a', 'b'), times_ms=(3, 2), strengths=(1.0, 1.0), forgotten_ms=0)
    """
    for entry in entries:
        history = _add(history, entry, limit)
    if forgotten_ms > history.forgotten_ms:
        kept = sum(time_ms > forgotten_ms for time_ms in history.times_ms)  # newest first: a prefix survives
        history = History(history.items[:kept], history.times_ms[:kept], history.strengths[:kept], forgotten_ms)
    if len(history.items) > limit:
        history = History(
            history.items[:limit], history.times_ms[:limit], history.strengths[:limit], history.forgotten_ms
        )
    return history


def _add(history: History, entry: Entry, limit: int) -> History:
    items, times_ms, strengths, forgotten_ms = history
    time_ms, item, strength = entry
    if time_ms <= forgotten_ms:
        return history
    if item in items:
        old = items.index(item)
        if (time_ms, strength) <= (times_ms[old], strengths[old]):
            return history
        items = items[:old] + items[old + 1 :]
        times_ms = times_ms[:old] + times_ms[old + 1 :]
        strengths = strengths[:old] + strengths[old + 1 :]
    place = 0  # most events are the user's newest: the search ends at once
    while place < len(items) and (times_ms[place], items[place]) > (time_ms, item):
        place += 1
    if place >= limit:
        return history
    return History(
        (*items[:place], item, *items[place : limit - 1]),
        (*times_ms[:place], time_ms, *times_ms[place : limit - 1]),
        (*strengths[:place], strength, *strengths[place : limit - 1]),
        forgotten_ms,
    )
