"""The effect of variety on accuracy: the same ranking, with fewer and fewer popular items."""

from __future__ import annotations

import numpy as np

from model.batch import Histories
from model.ranker import Ranked, Ranker
from model.variety import VarietyConfig, standard_popularity, varied

__all__ = ["VariedRanker"]


class VariedRanker:
    """A ranker whose lists are chosen with `config.popular` from its best candidates."""

    def __init__(self, ranker: Ranker, popularity: np.ndarray, config: VarietyConfig) -> None:
        """`popularity` [I] counts interactions of the training part."""
        self._ranker, self._config = ranker, config
        self._popularity = standard_popularity(popularity)

    def rank(self, histories: Histories, k: int) -> Ranked:
        """Columns and scores [B, K] in the order of the list."""
        ranked = self._ranker.rank(histories, max(k, self._config.candidates))
        popularity = self._popularity[ranked.columns]
        places = varied(ranked.scores, k, self._config, popularity=popularity)
        columns = np.where(places >= 0, np.take_along_axis(ranked.columns, np.maximum(places, 0), 1), -1)
        scores = np.where(places >= 0, np.take_along_axis(ranked.scores, np.maximum(places, 0), 1), -np.inf)
        return Ranked(columns, scores)
