"""Which of two lists of a user is older: the one whose history had come less far.

A list carries the version of its history in the header `history` of its record on `recommendations`, and so does the
tombstone of a forgotten user. Lists of the first release, and tombstones written by others, have no such header.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from state.codec import Columns

__all__ = ["HistoryVersion"]

_HEADER = "history"
_HALF = 2**63  # of the 64 bits that a sum is kept in


class HistoryVersion(NamedTuple):
    """Merging only ever moves it up (`state.history`): the time of forgetting grows; between two of those the newest
    interaction gets newer; and with the same newest interaction, items are added, met again later, or pushed out by
    newer ones, each of which adds to the sum of their times."""

    forgotten_ms: int
    newest_ms: int
    total_ms: int  # sum of the times of the last interaction with each item

    @classmethod
    def of(cls, history: Columns) -> HistoryVersion:
        times_ms = history.unpacked_times_ms()
        total_ms = sum(times_ms)
        if not -_HALF <= total_ms < _HALF:  # only of times that no updater accepts; it must fit the store all the same
            total_ms = (total_ms + _HALF) % (2 * _HALF) - _HALF
        return cls(history.forgotten_ms, times_ms[0] if times_ms else 0, total_ms)

    def header(self) -> tuple[str, bytes]:
        return _HEADER, b"%d %d %d" % self

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[str, bytes]]) -> HistoryVersion | None:
        """None when there is no such header, or somebody else's."""
        for name, value in headers:
            if name == _HEADER:
                try:
                    return cls(*map(int, value.split()))
                except (ValueError, TypeError):
                    return None
        return None
