"""Variety: chooses from the best of a ranking so that a list has fewer popular items, fewer similar items, or fewer
items of one category.

Items are chosen one after the other, by a value: the z-score of an item among the candidates of its user, less a part
for its popularity, and less a part for its similarity to the most similar item chosen so far (maximal marginal
relevance, Carbonell and Goldstein 1998). An item is skipped if one of its categories is full.

Legend: B users, N candidates, K listed, H numbers of a vector, G categories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["VarietyConfig", "standard_popularity", "unit_vectors", "varied"]


@dataclass(frozen=True)
class VarietyConfig:
    """A setting of 0 is off; with all of them off, variety takes no time."""

    popular: float = 0.0
    """Standard deviations of score that an item loses for each standard deviation of its popularity. About 0.6 puts a
    third more of a catalogue into lists and costs little; see docs/quality.md."""
    alike: float = 0.0
    """Standard deviations of score that an item loses when an item before it in the list is the same to the model;
    less, the less they are alike."""
    per_category: int = 0
    """Most items of one category in a list, by the categories of the topic `items`."""
    candidates: int = 100
    """Best items that a list is chosen from."""

    def __post_init__(self) -> None:
        for name in ("popular", "alike"):
            if not 0 <= getattr(self, name) <= 100:
                raise ValueError(f"{name} must be from 0 to 100, got {getattr(self, name)}")
        if self.per_category < 0 or self.candidates < 1:
            raise ValueError(
                f"per_category must not be negative and candidates positive, got {self.per_category} and "
                f"{self.candidates}"
            )

    @property
    def on(self) -> bool:
        return self.popular > 0 or self.alike > 0 or self.per_category > 0


def standard_popularity(counts: np.ndarray) -> np.ndarray:
    """float32 [I]: z-scores of the logarithms of counts [I]; 0 where all are alike."""
    logs = np.log1p(np.maximum(counts, 0))
    deviation = float(logs.std()) if len(logs) else 0.0
    return ((logs - logs.mean()) / deviation if deviation > 0 else np.zeros(len(logs))).astype(np.float32)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, H] scaled to length 1; zero vectors stay 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def varied(
    scores: np.ndarray,
    count: int,
    config: VarietyConfig,
    *,
    popularity: np.ndarray | None = None,
    vectors: np.ndarray | None = None,
    categories: np.ndarray | None = None,
) -> np.ndarray:
    """int64 [B, at most count] places among the candidates, in the order of the list; -1 at its end.

    `scores` [B, N] are -inf where there is no candidate. Optional are `popularity` [B, N] from `standard_popularity`,
    `vectors` [B, N, H] of length 1 or 0, and `categories` bool [B, N, G]; those that are not given do not count.
    """
    there = scores > -np.inf
    worth = _standardised(scores, there)
    if popularity is not None:
        worth -= config.popular * popularity
    worth = np.where(there, worth, -np.inf)
    alike = config.alike if vectors is not None else 0.0
    cap = config.per_category if categories is not None else 0
    count = min(count, scores.shape[1])
    if not alike and not cap:
        best = np.argsort(-worth, axis=1, kind="stable")[:, :count]
        return np.where(np.take_along_axis(there, best, 1), best, -1)
    users = np.arange(len(scores))
    chosen = np.full((len(scores), count), -1, dtype=np.int64)
    nearest = np.zeros_like(worth)  # similarity to the most similar item chosen so far; negative ones count as 0
    held = np.zeros((len(scores), categories.shape[2] if cap and categories is not None else 0), dtype=np.int64)
    for place in range(count):
        value = worth - alike * nearest
        if cap and categories is not None:
            full = (categories & (held >= cap)[:, None, :]).any(2)
            value = np.where(full, -np.inf, value)
        best = value.argmax(1)
        found = value[users, best] > -np.inf
        chosen[found, place] = best[found]
        worth[users[found], best[found]] = -np.inf
        if alike and vectors is not None:
            likeness = np.einsum("bnh,bh->bn", vectors, vectors[users, best])
            nearest = np.where(found[:, None], np.maximum(nearest, likeness), nearest)
        if cap and categories is not None:
            held += categories[users, best] & found[:, None]
    return chosen


def _standardised(scores: np.ndarray, there: np.ndarray) -> np.ndarray:
    """float64 [B, N]: z-scores among the candidates of each user, 0 where there is none."""
    number = np.maximum(there.sum(1, keepdims=True), 1)
    mean = np.where(there, scores, 0).sum(1, keepdims=True, dtype=np.float64) / number
    centred = np.where(there, scores - mean, 0)
    deviation = np.sqrt(np.square(centred).sum(1, keepdims=True) / number)
    return centred / np.where(deviation > 0, deviation, 1)
