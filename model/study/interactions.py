"""A log of interactions as arrays, and the user's history before each of its events.

Events with one user and one time are one moment, such as a basket: they have the same history, and the order of their
lines has no meaning.

Legend: n events of the log, Q events that are questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.batch import Histories

__all__ = ["Interactions", "Timeline", "moment_order", "moment_starts"]

_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Interactions:
    """Events in time order. Rows with the same user, item and time are one event, with the largest strength of them.

    Raises ValueError for arrays of unequal lengths, times that are not in order, and an empty log.
    """

    name: str
    users: np.ndarray  # int64 [n], positions in any list of users
    items: np.ndarray  # int64 [n], positions in `item_ids`
    times_ms: np.ndarray  # int64 [n]
    strengths: np.ndarray  # float32 [n]
    item_ids: Sequence[str]

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (self.users, self.items, self.times_ms, self.strengths)}
        if len(lengths) != 1:
            raise ValueError(f"{self.name}: columns of unequal lengths {sorted(lengths)}")
        if not len(self.times_ms):
            raise ValueError(f"{self.name}: there is no event to learn from")
        if (np.diff(self.times_ms) < 0).any():
            raise ValueError(f"{self.name}: events are not in time order")

    def __len__(self) -> int:
        return len(self.times_ms)

    @classmethod
    def ordered(
        cls,
        name: str,
        users: np.ndarray,
        items: np.ndarray,
        times_ms: np.ndarray,
        item_ids: Sequence[str],
        strengths: np.ndarray | None = None,
    ) -> Interactions:
        """A log from rows in any order; repeated rows are removed. Without `strengths` every event has strength 1.

        Rows of one time keep their order, but those of one moment are adjacent, at the place of the first of them.
        """
        weights = np.ones(len(users), np.float32) if strengths is None else strengths.astype(np.float32)
        rows = moment_order(users, times_ms, items, -weights)
        same = [np.diff(column[rows]) == 0 for column in (users, items, times_ms)]
        rows = rows[np.concatenate([np.ones(min(len(rows), 1), dtype=bool), ~np.logical_and.reduce(same)])]
        return cls(
            name,
            users[rows].astype(np.int64),
            items[rows].astype(np.int64),
            times_ms[rows].astype(np.int64),
            weights[rows],
            item_ids,
        )

    @property
    def moments(self) -> np.ndarray:
        """int64 [n]: the place of the first event of each event's moment."""
        return moment_starts(self.users, self.times_ms)


def moment_order(users: np.ndarray, times_ms: np.ndarray, *within: np.ndarray) -> np.ndarray:
    """int64 [n]: rows in time order, the rows of one moment together at the place of the first of them.

    Rows of one time otherwise keep their order. Inside a moment the rows are in the order of the keys `within`.
    """
    by_time = np.argsort(times_ms, kind="stable")
    users, times_ms = users[by_time], times_ms[by_time]
    grouped = np.lexsort((np.arange(len(users)), users, times_ms))
    first = np.empty(len(users), dtype=np.int64)  # row of each row's moment
    first[grouped] = grouped[moment_starts(users[grouped], times_ms[grouped])]
    return by_time[np.lexsort((*(key[by_time] for key in reversed(within)), first))]


def moment_starts(*columns: np.ndarray) -> np.ndarray:
    """int64 [n]: for each row the first row of its run of rows that are equal in all columns."""
    new = np.logical_or.reduce([np.diff(column, prepend=column[:1] - 1) != 0 for column in columns])
    return np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))


class Timeline:
    """The histories before events of a log: strictly before the event's moment, with at most `history_items` items.

    A history holds each item once, at its last time, the newest first; items of one moment are in the order of their
    ids, as in the histories that Freshet stores.
    """

    def __init__(self, log: Interactions, history_items: int = 200) -> None:
        self.log, self._limit = log, history_items
        # Positions below are in the order of users, then times, then items.
        self._order = np.lexsort((log.items, log.times_ms, log.users))
        users, items, times = log.users[self._order], log.items[self._order], log.times_ms[self._order]
        places = np.arange(len(log))
        self._user_start, self._moment_start = moment_starts(users), moment_starts(users, times)
        by_item = np.lexsort((places, items, users))  # occurrences of one user's item side by side
        again = (np.diff(users[by_item]) == 0) & (np.diff(items[by_item]) == 0)
        self._next_same = np.full(len(log), _NEVER)
        self._next_same[by_item[:-1][again]] = by_item[1:][again]
        self._met_before = np.zeros(len(log), dtype=bool)
        self._met_before[by_item[1:][again]] = True
        self._first_meetings = np.concatenate([[0], np.cumsum(~self._met_before)])
        self._place = np.empty(len(log), dtype=np.int64)  # of each event of the log
        self._place[self._order] = places

    def lengths(self, events: np.ndarray) -> np.ndarray:
        """int64 [Q]: distinct items that the user of each event had met before its moment."""
        place = self._place[events]
        return self._first_meetings[self._moment_start[place]] - self._first_meetings[self._user_start[place]]

    def repeats(self, events: np.ndarray) -> np.ndarray:
        """bool [Q]: whether the user of each event had met its item before."""
        return self._met_before[self._place[events]]

    def histories(self, events: np.ndarray, columns: np.ndarray) -> Histories:
        """One row for each event: the user's history before it. `columns` int64 [items] maps the log's items to a
        model's, -1 for items that it does not know."""
        place = self._place[events]
        return self._rows(self._user_start[place], self._moment_start[place], columns)

    def before(self, time_ms: int, columns: np.ndarray) -> Histories:
        """One row for each user with an event before `time_ms`: the history at that time."""
        earlier = self.log.times_ms[self._order] < time_ms
        starts = np.flatnonzero((self._user_start == np.arange(len(earlier))) & earlier)
        counts = np.add.reduceat(earlier, starts) if len(starts) else np.empty(0, dtype=np.int64)
        return self._rows(starts, starts + counts, columns)

    def _rows(self, starts: np.ndarray, ends: np.ndarray, columns: np.ndarray) -> Histories:
        """Histories of the positions starts[q] .. ends[q] - 1, newest first."""
        spans = ends - starts
        offsets = np.concatenate([[0], np.cumsum(spans)])
        place = np.repeat(ends, spans) - 1 - (np.arange(offsets[-1]) - np.repeat(offsets[:-1], spans))
        kept = self._next_same[place] >= np.repeat(ends, spans)  # the last time of each item
        kept &= columns[self.log.items[self._order[place]]] >= 0
        total = np.concatenate([[0], np.cumsum(kept)])
        events = self._order[place[kept]]
        log = self.log
        found = Histories(
            total[offsets].astype(np.int64), columns[log.items[events]], log.times_ms[events], log.strengths[events]
        )
        return found.newest(self._limit)
