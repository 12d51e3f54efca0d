"""Which of two lists of a user is older: the one whose history had come less far.

A list carries the version of its history in the header `history` of its record on `recommendations`, and so does the
tombstone of a forgotten user. Lists of the first release, and tombstones written by others, have no such header.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from state.codec import Columns

__all__ = ["HistoryVersion"]

_HEADER = "history"


class HistoryVersion(NamedTuple):
    """Merging only ever moves it up (`state.history`): the time of forgetting grows; between two of those the newest
    interaction gets newer; and with the same newest interaction, items are added, met again later, or pushed out by
    newer ones, each of which adds to the sum of their times."""

    forgotten_ms: int
    newest_ms: int
    total_ms: int  # sum of the times of the last interaction with each item

    @classmethod
    def of(cls, history: Columns) -> HistoryVersion:
        total_ms = int(np.frombuffer(history.times_ms, dtype="<i8").sum())
        return cls(history.forgotten_ms, history.newest_ms, total_ms)

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
