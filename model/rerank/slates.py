"""Slates: the candidates of some users with their features, ready for the reranker.

Legend: B users, M candidates, C columns (items of the counts), K length of the model's lists, F and G features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.rerank.asked import Asked
from model.rerank.candidates import CandidateConfig, Followers, candidates
from model.rerank.counts import StreamCounts
from model.rerank.features import item_features, user_features
from model.rerank.reranker import Examples, Reranker

__all__ = ["ModelLists", "Slates", "make_slates"]


@dataclass(frozen=True)
class ModelLists:
    """A model's lists and terms for the same users, in the columns of the counts."""

    best: np.ndarray  # int64 [B, K], -1 at the end of a row
    terms: Callable[[np.ndarray], np.ndarray]  # float32 [B, M, 2] of columns [B, M], see `item_features`


@dataclass(frozen=True)
class Slates:
    """Candidates are in the order model, own, demand, followers; an invalid place holds none."""

    columns: np.ndarray  # int64 [B, M], -1 where invalid
    items: np.ndarray  # float32 [B, M, F]
    users: np.ndarray  # float32 [B, G]
    modelled: np.ndarray  # int64 [B], how many of the first candidates are the model's list, best first

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def valid(self) -> np.ndarray:
        """bool [B, M]"""
        return self.columns >= 0

    def row(self, row: int) -> Slates:
        """The slate of one user, with items at half precision, as examples have them."""
        one = slice(row, row + 1)
        items = self.items[one].astype(np.float16)
        return Slates(self.columns[one].copy(), items, self.users[one].copy(), self.modelled[one].copy())

    def best(
        self, reranker: Reranker, count: int, forbidden: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(Columns int64 [B, at most count], scores float32), best first, with -1 and -inf at the end of a row.
        `forbidden` bool [C] marks columns that may not be listed to any user."""
        valid = self.valid
        if forbidden is not None:
            valid = valid & ~forbidden[np.maximum(self.columns, 0)]
        scores = reranker.scores(self.items, self.users, valid)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        values = np.take_along_axis(scores, order, 1)
        return np.where(values > -np.inf, np.take_along_axis(self.columns, order, 1), -1), values

    def answered(self, rows: np.ndarray, items: np.ndarray) -> Examples:
        """Examples from the slates of users `rows` int64 [Q], whose next items were the columns `items` int64 [Q]."""
        hit = (self.columns[rows] == items[:, None]) & (items >= 0)[:, None]
        answers = np.where(hit.any(1), hit.argmax(1), -1)
        features = self.items[rows].astype(np.float16)
        return Examples(features, self.users[rows], self.valid[rows], answers, self.modelled[rows])


def make_slates(counts: StreamCounts, asked: Asked, config: CandidateConfig, model: ModelLists | None = None) -> Slates:
    """The slates of B users at the times `asked.now_ms`."""
    followers = Followers(counts, asked)
    columns = candidates(counts, asked, followers, config, None if model is None else model.best)
    terms = None if model is None else model.terms(columns)
    items = item_features(counts, asked, followers, columns, terms)
    modelled = np.zeros(len(asked), dtype=np.int64)
    if model is not None:
        # No item of the model's list is hidden, so the whole list is at the front.
        modelled = np.minimum((model.best >= 0).sum(1), min(config.model, config.kept))
    return Slates(columns, items, user_features(asked), modelled)
