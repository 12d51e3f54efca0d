"""The meaning of events: their strength, whether they are negative, and how long they hide their item.

Histories keep the producers' own kinds (`view`, `buy`); the settings file says what these mean, so that no history has
to be rewritten when a setting changes. A kind without a setting counts with the event's weight and hides its item for
ever.

Of the interactions with one item, only those after the last negative one count: it takes back all earlier ones. An item
is hidden as long as any of its interactions hides it, so that a later view does not bring a disliked item back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from state.codec import Columns
from state.traces import kind_hash, trace_columns

__all__ = ["ALL_ALIKE", "ALWAYS", "NEVER", "EventKind", "EventKinds", "Meaning", "earlier_columns", "hiding_ms"]

_DAY_MS = 86_400_000
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": _DAY_MS, "w": 7 * _DAY_MS}

NEVER, ALWAYS = 0, 2**62  # milliseconds for which an event hides its item

_EARLIER = np.dtype([("place", "<u2"), ("kind", "<u2"), ("strength", "<f4"), ("time_ms", "<i8")])


def hiding_ms(hides: str) -> int:
    """`never`, `always`, or a duration such as `90m`, `12h`, `30d`, `2w`, in milliseconds. Raises ValueError.

    >>> hiding_ms("30d"), hiding_ms("never")
    (2592000000, 0)
    """
    if hides == "never":
        return NEVER
    if hides == "always":
        return ALWAYS
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", hides)
    if match is None:
        raise ValueError(f"hides must be never, always or a duration like 12h, 30d or 2w, got {hides!r}")
    return int(float(match[1]) * _UNITS_MS[match[2]])


@dataclass(frozen=True)
class EventKind:
    """One `[events.<kind>]` section of the settings file."""

    strength: float = 1.0
    """Factor on the weight of the event."""
    negative: bool = False
    """Whether the event takes back the interactions before it. A negative event is never a right answer."""
    hides: str = "always"
    """How long the event hides its item: never, always, or a duration such as 12h, 30d or 2w."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < 1e6:
            raise ValueError(f"strength must be from 0 to a million, got {self.strength}")
        hiding_ms(self.hides)


class Meaning(NamedTuple):
    """The meaning of a history at one moment. All arrays except `hidden_hashes` are parallel to its items."""

    strengths: np.ndarray  # float32: the largest since the last negative event; 0 when the last one is negative
    hidden: np.ndarray  # bool: may not be listed
    times: np.ndarray  # int32: how many positive interactions are known since the last negative one
    gap_ms: np.ndarray  # float64: the mean time between them; NaN with fewer than two
    hidden_hashes: np.ndarray  # uint64: `item_hash` of items that left the history and may not be listed


@dataclass(frozen=True)
class EventKinds:
    """All `[events.*]` sections."""

    kinds: Mapping[str, EventKind] = field(default_factory=dict)

    def __getitem__(self, kind: str) -> EventKind:
        return self.kinds.get(kind, _DEFAULT)

    @cached_property
    def plain(self) -> bool:
        """Whether all kinds have the default meaning: every item that was met is then hidden for ever."""
        return all(kind == _DEFAULT for kind in self.kinds.values())

    def positive(self, kind: str, weight: float) -> bool:
        """Whether an event of this kind and weight is positive, which means that it speaks for its item."""
        if self.plain:
            return weight > 0
        found = self[kind]
        return weight * found.strength > 0 and not found.negative

    def strength(self, kind: str, weight: float) -> float:
        """The strength with which such an event counts; 0 when the event is not positive."""
        return weight * self[kind].strength if self.positive(kind, weight) else 0.0

    def meaning(self, columns: Columns, now_ms: int) -> Meaning:
        """The meaning of a stored history at `now_ms` of event time."""
        count = len(columns.items)
        weights = np.frombuffer(columns.strengths, dtype="<f4")
        times_ms = np.frombuffer(columns.times_ms, dtype="<i8")
        table = _Table(self, columns.kinds or ("",))
        last = np.frombuffer(columns.item_kinds, dtype="<u2") if columns.item_kinds else np.zeros(count, dtype="<u2")
        strengths = weights * table.strength[last]
        hidden = times_ms + table.hides_ms[last] > now_ms
        times = (strengths > 0).astype(np.int32)
        gap_ms = np.full(count, np.nan)
        if columns.earlier:
            earlier = earlier_columns(columns.earlier)
            np.logical_or.at(hidden, earlier["place"], earlier["time_ms"] + table.hides_ms[earlier["kind"]] > now_ms)
            counted = _since_negative(earlier, strengths, table)
            place = earlier["place"][counted]
            strengths = strengths.copy()
            np.maximum.at(strengths, place, (earlier["strength"] * table.strength[earlier["kind"]])[counted])
            np.add.at(times, place, 1)
            oldest = times_ms.copy()
            np.minimum.at(oldest, place, earlier["time_ms"][counted])
            several = times > 1
            gap_ms[several] = (times_ms - oldest)[several] / (times[several] - 1)
        return Meaning(strengths, hidden, times, gap_ms, self._hidden_traces(columns.traces, now_ms))

    def _hidden_traces(self, traces: bytes, now_ms: int) -> np.ndarray:
        days, items, kinds = trace_columns(traces)
        hides_ms = np.full(len(days), hiding_ms(_DEFAULT.hides), dtype=np.int64)
        for kind, found in self.kinds.items():
            hides_ms[kinds == kind_hash(kind)] = hiding_ms(found.hides)
        until_ms = (days.astype(np.int64) + 1) * _DAY_MS + hides_ms  # a trace knows the day only
        return items[(hides_ms != NEVER) & (until_ms > now_ms)]


def earlier_columns(earlier: bytes) -> np.ndarray:
    """Fields place, kind, strength and time_ms of `state.codec.Columns.earlier`, [n]."""
    return np.frombuffer(earlier, dtype=_EARLIER)


class _Table:
    """The meanings of the kinds of one history, by their place in its table of kinds."""

    def __init__(self, kinds: EventKinds, names: tuple[str, ...]) -> None:
        found = [kinds[name] for name in names]
        self.strength = np.array([0.0 if kind.negative else kind.strength for kind in found], dtype=np.float32)
        self.hides_ms = np.array([hiding_ms(kind.hides) for kind in found], dtype=np.int64)


def _since_negative(earlier: np.ndarray, last: np.ndarray, table: _Table) -> np.ndarray:
    """bool, one per row of `earlier`: whether the interaction came after the last negative one with its item.

    The rows are sorted by item, and newest first for each item, so a running count gives the number of negative ones up
    to a row.
    """
    negative = earlier["strength"] * table.strength[earlier["kind"]] <= 0
    met = np.cumsum(negative)
    first = np.searchsorted(earlier["place"], earlier["place"])  # of the row's item
    before_item = met[first] - negative[first]
    return (met == before_item) & (last[earlier["place"]] > 0)


_DEFAULT = EventKind()
ALL_ALIKE = EventKinds()
