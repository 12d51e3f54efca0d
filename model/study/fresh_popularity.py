"""Popularity that is up to date for every question: the baseline where demand changes faster than models are trained.

Counts decay with event time and include all users' events up to the time of a question. The half-life is chosen on
events before the questions that are reported, like the settings of any model.

Legend: n events of a log, Q questions, I items, B users, K recommended.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from model.batch import Histories
from model.items import ItemIndex
from model.popularity import DecayedPopularity
from model.ranker import Ranked
from model.study.interactions import Interactions, Timeline

__all__ = ["HALF_LIVES_DAYS", "DecayingCounts", "FreshPopularity", "fresh_popularity_ranks"]

HALF_LIVES_DAYS = (0.5, 1.0, 2.0, 4.0, 7.0, 15.0, 30.0)

_DAY_MS = 86_400_000.0
_LARGEST_EXPONENT = 500.0  # floats end at 2^1023


class DecayingCounts:
    """Counts [I] that halve every `half_life_days`: an event adds 2^((time - origin) / half-life), so that old counts
    decay relative to new ones without an update. Only the order and the ratios of the counts have a meaning."""

    def __init__(self, items: int, half_life_days: float) -> None:
        if half_life_days <= 0:
            raise ValueError(f"half_life_days must be positive, got {half_life_days}")
        self.values: np.ndarray = np.zeros(items)
        self._half_life_ms = half_life_days * _DAY_MS
        self._origin_ms: float | None = None

    def add(self, items: np.ndarray, times_ms: np.ndarray, strengths: np.ndarray) -> None:
        """Count events; older ones count less."""
        if not len(items):
            return
        newest = float(times_ms.max())
        if self._origin_ms is None:
            self._origin_ms = newest
        elif (newest - self._origin_ms) / self._half_life_ms > _LARGEST_EXPONENT:
            self.values *= 2.0 ** max((self._origin_ms - newest) / self._half_life_ms, -1000.0)
            self._origin_ms = newest
        weights = strengths * np.exp2((times_ms - self._origin_ms) / self._half_life_ms)
        np.add.at(self.values, items, weights)

    def rank_of(self, item: int, seen: np.ndarray) -> int:
        """The place of `item` from 1 among the items that are not `seen`; 0 when it was never counted.

        Of equal counts the lower column comes first.
        """
        value = self.values[item]
        if value <= 0:
            return 0
        better = np.count_nonzero(self.values > value) + np.count_nonzero(self.values[:item] == value)
        others = self.values[seen]
        better -= np.count_nonzero(others > value) + np.count_nonzero((others == value) & (seen < item))
        return int(better) + 1


def fresh_popularity_ranks(
    log: Interactions, timeline: Timeline, events: np.ndarray, half_life_days: float, cutoff: int
) -> np.ndarray:
    """int64 [Q]: the rank of each event's item in the list at that time, 0 when it is not among the first `cutoff`.

    A repeated item is never listed. `events` int64 [Q] are places in the log, ascending.
    """
    counts = DecayingCounts(len(log.item_ids), half_life_days)
    ranks = np.zeros(len(events), dtype=np.int64)
    repeated, moments = timeline.repeats(events), log.moments
    columns, counted = np.arange(len(log.item_ids)), 0
    for start in range(0, len(events), 1000):
        block = events[start : start + 1000]
        histories = timeline.histories(block, columns)
        for place, event in enumerate(block.tolist()):
            until = int(moments[event])
            if until > counted:
                rows = slice(counted, until)
                counts.add(log.items[rows], log.times_ms[rows], log.strengths[rows])
                counted = until
            if repeated[start + place]:
                continue
            seen = histories.columns[histories.offsets[place] : histories.offsets[place + 1]]
            rank = counts.rank_of(int(log.items[event]), seen)
            ranks[start + place] = rank if rank <= cutoff else 0
    return ranks


class FreshPopularity:
    """Fresh popularity as a ranker, for protocols that ask once per user: with the counts at the user's newest event.

    It counts only the events that it was fitted on, so held-out events cannot leak into it.
    """

    def __init__(self, items: ItemIndex, half_life_days: float) -> None:
        self.items, self._half_life_days = items, half_life_days
        nothing = np.empty(0, np.int64)
        self._fitted = Histories(np.zeros(1, np.int64), nothing, nothing, np.empty(0, np.float32))

    def fit(self, histories: Histories) -> Self:
        """Store the events of B histories."""
        self._fitted = histories.known()
        return self

    def rank(self, histories: Histories, k: int) -> Ranked:
        """Columns and scores [B, K] of the items that were most popular at each user's newest event, or at the end for
        a user without one."""
        fitted, columns = self._fitted, np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        order = np.argsort(fitted.times_ms, kind="stable")
        counts, counted = DecayingCounts(len(self.items), self._half_life_days), 0
        whole = np.where(histories.lengths > 0, histories.offsets[:-1], -1)
        asked = np.where(whole >= 0, np.append(histories.times_ms, 0)[whole], np.iinfo(np.int64).max)
        until = np.searchsorted(fitted.times_ms[order], asked, side="right")
        for user in np.argsort(until, kind="stable").tolist():
            rows = order[counted : until[user]]
            counts.add(fitted.columns[rows], fitted.times_ms[rows], fitted.strengths[rows])
            counted = max(counted, int(until[user]))
            popularity = DecayedPopularity(self.items)
            popularity.scores = counts.values / max(float(counts.values.max(initial=0)), 1.0)  # fits float32
            ranked = popularity.rank(histories.select(np.array([user])), k)
            columns[user], scores[user] = ranked.columns[0], ranked.scores[0]
        return Ranked(columns, scores)
