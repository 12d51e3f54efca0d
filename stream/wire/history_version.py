"""The version of a history: it tells which of two lists of a user was made from the older history.

A list carries the version of its history in the header `history` of its record on `recommendations`, and so does the
tombstone of a forgotten user. Lists of the first release, and tombstones written by others, have no such header.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from state.codec import Columns

__all__ = ["HistoryVersion"]

_HEADER = "history"
_HALF = 2**63  # half of the range of the 64-bit integer that a sum is stored in


class HistoryVersion(NamedTuple):
    """Versions are compared field by field, and merging never makes a version smaller (`state.history`). The time of
    forgetting only grows. While it stays the same, the newest interaction only gets newer. While that stays the same,
    too, items are added, met again later, or replaced by newer ones, and each of these increases the sum of times."""

    forgotten_ms: int
    newest_ms: int
    total_ms: int  # sum of the times of the last interaction with each item

    @classmethod
    def of(cls, history: Columns) -> HistoryVersion:
        times_ms = history.unpacked_times_ms()
        total_ms = sum(times_ms)
        if not -_HALF <= total_ms < _HALF:  # only with times that no updater accepts; it must still fit the store
            total_ms = (total_ms + _HALF) % (2 * _HALF) - _HALF
        return cls(history.forgotten_ms, times_ms[0] if times_ms else 0, total_ms)

    def header(self) -> tuple[str, bytes]:
        return _HEADER, b"%d %d %d" % self

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[str, bytes]]) -> HistoryVersion | None:
        """The version in these headers; None when there is no such header, or none that can be read."""
        for name, value in headers:
            if name == _HEADER:
                try:
                    return cls(*map(int, value.split()))
                except (ValueError, TypeError):
                    return None
        return None
