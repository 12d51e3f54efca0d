"""Why a model shows an item: the interaction without which it would stand lower.

The answer is the model's own: the history is scored again with one interaction left out at a time, weights of time and
all, as if that interaction had not happened.
"""

from __future__ import annotations

import numpy as np

from model.batch import Histories
from model.recommend import Recommender

__all__ = ["because"]

_NEWEST = 20  # interactions tried; what is older carries little weight


def because(recommender: Recommender, history: Histories, columns: np.ndarray) -> np.ndarray:
    """int64 [K]: for each of `columns` [K] the place in the history (0 the newest) that its score owes most to.

    `history` is one user's and holds none of `columns`. -1 where no interaction raises the score. Dense: 4 bytes times
    21 times the catalogue for a moment. Raises `NonFiniteScores`.
    """
    length = int(history.lengths[0])
    tried = min(length, _NEWEST)
    if not tried:
        return np.full(len(columns), -1, dtype=np.int64)
    entries = np.arange(length)
    kept = [entries, *(np.delete(entries, place) for place in range(tried))]
    rows = np.concatenate(kept)
    without = Histories(
        np.concatenate([[0], np.cumsum([len(row) for row in kept])]).astype(np.int64),
        history.columns[rows],
        history.times_ms[rows],
        history.strengths[rows],
    )
    scores = recommender.scores(without)[:, columns].cpu().numpy()  # [1 + tried, K]
    owed = scores[0] - scores[1:]
    return np.where(owed.max(0) > 0, owed.argmax(0), -1)
