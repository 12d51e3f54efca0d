"""A user's history: a join-semilattice that duplicates, replays and reordering cannot corrupt.

A history is a function of the *set* of a user's interactions, whatever the order and the batches they came in:

    1. interactions at or before `forgotten_ms`, which only grows, do not count
    2. the newest `limit` items stay, by (time, item) of their last interaction
    3. the *horizon* of a full history is the (time, item) of its oldest item; a shorter history has none
    4. of each item that stays, these interactions are kept: the last one and, of earlier ones that are not older than
       the horizon, the newest `REPEATS` and the newest of each kind. Two interactions of the same time and kind count
       as one, with the larger strength
    5. interactions older than the horizon leave a trace: the newest day by item and kind, of these the newest `TRACES`

Every step picks maxima of total orders, and the horizon only gets newer. So

    merge(a, b) == merge(b, a)                        commutative: the order of arrival does not matter
    merge(merge(a, b), c) == merge(a, merge(b, c))    associative: neither does batching
    merge(a, a) == a                                  idempotent: nor does delivering twice

Dropping is safe: an item that is dropped has `limit` newer items before it, and those only get newer. An interaction
that step 4 leaves out is older than others of the same item and kind, and these stay within the horizon for longer than
it would.

Event time is integer milliseconds since 1970 UTC everywhere; `_ms` marks it. Strengths are float32 values. A kind is
the producer's own word (`view`, `buy`); what it means is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from state.traces import add_traces, forget_traces, join_traces

__all__ = ["EMPTY", "REPEATS", "Entry", "Event", "History", "merge", "merge_entries"]

REPEATS = 7  # interactions kept of an item besides its last


class Entry(NamedTuple):
    """An interaction with an item. Tuples compare by (time, item, strength, kind)."""

    time_ms: int
    item: str
    strength: float
    kind: str = ""


class Event(NamedTuple):
    """An interaction with a given item. The largest event of an item is its last interaction."""

    time_ms: int
    strength: float
    kind: str = ""


class History(NamedTuple):
    """Parallel columns of the items, newest first by (time, item); each item appears once."""

    items: tuple[str, ...] = ()
    times_ms: tuple[int, ...] = ()  # of the last interaction
    strengths: tuple[float, ...] = ()  # of the last interaction
    forgotten_ms: int = 0  # interactions at or before this time are erased and stay erased
    kinds: tuple[str, ...] = ()  # of the last interaction; the column is empty when all of them are ""
    earlier: tuple[tuple[Event, ...], ...] = ()  # newest first, without the last; empty when there is none at all
    traces: bytes = b""  # of interactions older than the horizon, see `state.traces`

    def entries(self) -> Iterator[Entry]:
        """Every interaction that is kept."""
        for place, item in enumerate(self.items):
            for event in self.events(place):
                yield Entry(event.time_ms, item, event.strength, event.kind)

    def events(self, place: int) -> tuple[Event, ...]:
        """Interactions with the item at this place, newest first."""
        last = Event(self.times_ms[place], self.strengths[place], self.kinds[place] if self.kinds else "")
        return (last, *self.earlier[place]) if self.earlier else (last,)

    @property
    def newest_ms(self) -> int:
        """Event time of the newest interaction; 0 when there is none."""
        return self.times_ms[0] if self.times_ms else 0


EMPTY = History()


def merge(a: History, b: History, limit: int) -> History:
    """The join of two histories, bounded to the newest `limit` items. Returns `a` itself when `b` adds nothing."""
    joined = merge_entries(a, b.entries(), limit, b.forgotten_ms)
    if b.traces:
        traces = forget_traces(join_traces(joined.traces, b.traces), joined.forgotten_ms)
        if traces != joined.traces:
            joined = joined._replace(traces=traces)
    return joined


def merge_entries(history: History, entries: Iterable[Entry], limit: int, forgotten_ms: int = 0) -> History:
    """`history` joined with single interactions and a time of forgetting.

    Returns the same object when nothing changed, so that callers can detect a duplicate by `is`.

    >>> merge_entries(EMPTY, [Entry(1, "a", 1.0), Entry(2, "b", 1.0), Entry(3, "c", 1.0)], limit=2).items
    ('c', 'b')
    """
    for entry in entries:
        history = _add(history, entry, limit)
    if forgotten_ms > history.forgotten_ms:
        history = _forget(history, forgotten_ms)
    return history if len(history.items) < limit else _cut(history, limit)


def _add(history: History, entry: Entry, limit: int) -> History:
    items, times_ms, strengths, forgotten_ms, kinds, earlier, traces = history
    time_ms, item, strength, kind = entry
    if time_ms <= forgotten_ms:
        return history
    if item in items:
        return _add_to_known(history, items.index(item), Event(time_ms, strength, kind), limit)
    place = _place(items, times_ms, time_ms, item)
    if place >= limit:
        traces = add_traces(history.traces, [(time_ms, item, kind)], forgotten_ms)
        return history if traces == history.traces else history._replace(traces=traces)
    if len(items) == limit:  # the last item leaves now, so that `_cut` gets no columns that are one item too long
        gone = [(event.time_ms, items[-1], event.kind) for event in history.events(limit - 1)]
        traces = add_traces(traces, gone, forgotten_ms)
        items, times_ms, strengths, kinds, earlier = items[:-1], times_ms[:-1], strengths[:-1], kinds[:-1], earlier[:-1]
        kinds, earlier = kinds if any(kinds) else (), earlier if any(earlier) else ()
    if kind or kinds:
        kinds = kinds or ("",) * len(items)
        kinds = (*kinds[:place], kind, *kinds[place:])
    history = History(
        (*items[:place], item, *items[place:]),
        (*times_ms[:place], time_ms, *times_ms[place:]),
        (*strengths[:place], strength, *strengths[place:]),
        forgotten_ms,
        kinds,
        (*earlier[:place], (), *earlier[place:]) if earlier else (),
        traces,
    )
    return _cut(history, limit) if earlier or len(items) >= limit else history


def _place(items: tuple[str, ...], times_ms: tuple[int, ...], time_ms: int, item: str) -> int:
    place = 0  # most events are the user's newest: the search ends at once
    while place < len(items) and (times_ms[place], items[place]) > (time_ms, item):
        place += 1
    return place


def _add_to_known(history: History, old: int, event: Event, limit: int) -> History:
    """Add an event of the item at place `old`: a new interaction, or a late or repeated event."""
    items, times_ms, strengths, forgotten_ms, kinds, earlier, traces = history
    item, before = items[old], history.events(old)
    if len(items) >= limit and (event.time_ms, item) < (times_ms[-1], items[-1]):
        traces = add_traces(traces, [(event.time_ms, item, event.kind)], forgotten_ms)
        return history if traces == history.traces else history._replace(traces=traces)
    after = _select({*before, event})
    if after == before:
        return history
    last, rest = after[0], after[1:]
    if last.kind and not kinds:
        kinds = ("",) * len(items)
    if rest and not earlier:
        earlier = ((),) * len(items)

    items, times_ms = items[:old] + items[old + 1 :], times_ms[:old] + times_ms[old + 1 :]
    place = _place(items, times_ms, last.time_ms, item)

    def moved(column: tuple, value: object) -> tuple:
        left = column[:old] + column[old + 1 :]
        return (*left[:place], value, *left[place:])

    kinds = moved(kinds, last.kind) if kinds else ()
    history = History(
        (*items[:place], item, *items[place:]),
        (*times_ms[:place], last.time_ms, *times_ms[place:]),
        moved(strengths, last.strength),
        forgotten_ms,
        kinds if any(kinds) else (),
        moved(earlier, rest) if earlier else (),
        traces,
    )
    return _cut(history, limit)


def _select(events: set[Event]) -> tuple[Event, ...]:
    """The interactions with an item that step 4 keeps, newest first."""
    if len(events) == 1:
        return tuple(events)
    kept: list[Event] = []
    met: set[tuple[int, str]] = set()
    kinds: set[str] = set()
    for event in sorted(events, reverse=True):
        if (event.time_ms, event.kind) in met:  # the same interaction, with a larger strength
            continue
        met.add((event.time_ms, event.kind))
        if len(kept) <= REPEATS or event.kind not in kinds:
            kept.append(event)
            kinds.add(event.kind)
    return tuple(kept)


def _cut(history: History, limit: int) -> History:
    """The history cut to `limit` items, and to interactions that are not older than the horizon."""
    items, times_ms, strengths, forgotten_ms, kinds, earlier, traces = history
    count = len(items)
    if count < limit or (count == limit and not earlier):
        return history
    gone: list[tuple[int, str, str]] = []
    if count > limit:
        gone = [(event.time_ms, items[n], event.kind) for n in range(limit, count) for event in history.events(n)]
        items, times_ms, strengths = items[:limit], times_ms[:limit], strengths[:limit]
        kinds, earlier = kinds[:limit], earlier[:limit]
    if earlier:
        horizon = times_ms[-1], items[-1]
        beyond = [n for n, events in enumerate(earlier) if events and (events[-1].time_ms, items[n]) < horizon]
        for place in beyond:
            events = earlier[place]
            kept = tuple(event for event in events if (event.time_ms, items[place]) >= horizon)
            gone += [(event.time_ms, items[place], event.kind) for event in events[len(kept) :]]
            earlier = (*earlier[:place], kept, *earlier[place + 1 :])
    if not gone:
        return history
    kinds, earlier = kinds if any(kinds) else (), earlier if any(earlier) else ()
    return History(items, times_ms, strengths, forgotten_ms, kinds, earlier, add_traces(traces, gone, forgotten_ms))


def _forget(history: History, forgotten_ms: int) -> History:
    kept = sum(time_ms > forgotten_ms for time_ms in history.times_ms)  # newest first: a prefix is kept
    earlier = tuple(
        tuple(event for event in events if event.time_ms > forgotten_ms) for events in history.earlier[:kept]
    )
    kinds = history.kinds[:kept]
    return History(
        history.items[:kept],
        history.times_ms[:kept],
        history.strengths[:kept],
        forgotten_ms,
        kinds if any(kinds) else (),
        earlier if any(earlier) else (),
        forget_traces(history.traces, forgotten_ms),
    )
