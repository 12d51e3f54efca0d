"""Variety in served lists: collects what `model.variety` needs to know about the candidates of a batch.

Legend: B users, N candidates, n distinct items among them, G categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from model.recommend import Recommender
from model.rerank.counts import StreamCounts
from model.variety import VarietyConfig, standard_popularity, unit_vectors, varied
from stream.wire.items import ItemRecord

__all__ = ["ListVariety"]


class ListVariety:
    """Single-threaded, like the counts."""

    def __init__(self, config: VarietyConfig, counts: StreamCounts, records: Mapping[str, ItemRecord]) -> None:
        self._config, self._counts, self._records = config, counts, records

    def choose(
        self, model: Recommender, items: Sequence[Sequence[str]], scores: Sequence[Sequence[float]], count: int
    ) -> tuple[list[list[str]], list[list[float]]]:
        """(Items, their own scores) of each user's list of at most `count`, from candidates in the order of their
        scores."""
        config = self._config
        width = max(map(len, items), default=0)
        if not width:
            return [list(row) for row in items], [list(row) for row in scores]
        values = np.full((len(items), width), -np.inf)
        for row, given in enumerate(scores):
            values[row, : len(given)] = given
        names = sorted({item for row in items for item in row})
        place_of = {item: place for place, item in enumerate(names)}
        places = np.zeros((len(items), width), dtype=np.int64)
        for row, listed in enumerate(items):
            places[row, : len(listed)] = [place_of[item] for item in listed]
        chosen = varied(
            values,
            count,
            config,
            popularity=self._popular(names)[places] if config.popular else None,
            vectors=_directions(model, names)[places] if config.alike else None,
            categories=self._categories(names)[places] if config.per_category else None,
        ).tolist()
        return (
            [[row[place] for place in best if place >= 0] for row, best in zip(items, chosen, strict=True)],
            [[row[place] for place in best if place >= 0] for row, best in zip(scores, chosen, strict=True)],
        )

    def _popular(self, names: Sequence[str]) -> np.ndarray:
        """float32 [n]; an item that was never counted is as popular as the least popular one."""
        counts = self._counts
        slowest = max(range(len(counts.config.demand_days)), key=lambda half: counts.config.demand_days[half] or np.inf)
        # Computed anew each time: a list depends on the counts of its moment and on no value kept from before.
        popularity = standard_popularity(counts.demand[: len(counts), slowest])
        columns = counts.columns(names)
        return np.where(columns >= 0, np.append(popularity, 0)[columns], popularity.min(initial=0.0))

    def _categories(self, names: Sequence[str]) -> np.ndarray:
        """bool [n, G]"""
        of = [record.categories if (record := self._records.get(name)) is not None else () for name in names]
        every = {category: place for place, category in enumerate(sorted({c for row in of for c in row}))}
        found = np.zeros((len(names), len(every)), dtype=bool)
        for place, row in enumerate(of):
            found[place, [every[category] for category in row]] = True
        return found


def _directions(model: Recommender, names: Sequence[str]) -> np.ndarray:
    """float32 [n, H] of length 1; 0 for items that the model does not know."""
    columns = model.items.columns(names)
    known = columns >= 0
    vectors = model.vectors(np.maximum(columns, 0), centred=True)
    return np.where(known[:, None], unit_vectors(vectors), 0).astype(np.float32)
