"""Time-decayed popularity of histories: the baseline that every model is compared with.

Legend: B users, I items, K recommended.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from model.batch import Histories
from model.items import ItemIndex
from model.ranker import Hidden, Ranked

__all__ = ["DecayedPopularity"]

_DAY_MS = 86_400_000.0


class DecayedPopularity:
    """Counts that halve every `half_life_days` of event time; without it, plain counts."""

    def __init__(self, items: ItemIndex, half_life_days: float | None = None) -> None:
        self.items, self._half_life = items, half_life_days
        self.scores: np.ndarray = np.zeros(len(items))

    def fit(self, histories: Histories) -> Self:
        """Scores [I] from B histories: the sum over interactions of strength * 2^(-age / half-life)."""
        histories = histories.known()
        weights = histories.strengths.astype(np.float64)
        if self._half_life is not None and len(histories.times_ms):
            age_days = (histories.times_ms.max() - histories.times_ms) / _DAY_MS
            weights = weights * 2.0 ** (-age_days / self._half_life)
        self.scores = np.bincount(histories.columns, weights, minlength=len(self.items))
        return self

    def rank(self, histories: Histories, k: int, hidden: Hidden | None = None) -> Ranked:
        """The `k` most popular items, columns and scores [B, K], for each of B users, without the `hidden` ones: by
        default, the items that the user has met."""
        if hidden is None:
            hidden = Hidden.met(histories.known())
        order = np.lexsort((np.arange(len(self.scores)), -self.scores))
        longest = int(np.bincount(hidden.rows).max(initial=0))
        candidates = order[: k + longest]  # enough for the user from whom most are hidden
        place = np.full(len(self.items), -1)
        place[candidates] = np.arange(len(candidates))
        allowed = np.ones((len(histories), len(candidates)), dtype=bool)
        seen = place[hidden.columns] >= 0
        allowed[hidden.rows[seen], place[hidden.columns[seen]]] = False
        columns = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        nth = np.cumsum(allowed, 1) - 1
        row, candidate = np.nonzero(allowed & (nth < k))
        columns[row, nth[row, candidate]] = candidates[candidate]
        scores[row, nth[row, candidate]] = self.scores[candidates[candidate]]
        return Ranked(columns, scores)
