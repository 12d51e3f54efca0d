"""The few items worth ranking for a user, from several sources.

Candidates are the items in most demand now, the items that followed the user's newest items, the items that the user
may meet again, and the model's own best items. The cost depends on their number, not on the size of the catalogue.

Legend: B users, L places of a history, M candidates, S sums of a pair, n pairs of a user and a follower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.ranker import Hidden
from model.rerank.asked import Asked, earlier_places
from model.rerank.counts import StreamCounts
from model.rerank.pair_index import PairIndex

__all__ = ["CandidateConfig", "Followers", "candidates"]

_PLACE_HALF_LIFE = 2.0  # moments after which the pairs of an item have half the weight
_PRIOR_PAIRS = 1.0  # added to the pairs of an item, so that a share of few pairs stays small


@dataclass(frozen=True)
class CandidateConfig:
    """How many candidates each source gives at most."""

    wanted: int = 64
    """Items that everybody wants most now."""
    followers: int = 64
    """Items that followed the user's newest ones."""
    own: int = 48
    """Items that the user met before and may meet again."""
    model: int = 64
    """The model's own best."""
    kept: int = 160
    """Of all of these, in the order model, own, wanted, followers."""

    def __post_init__(self) -> None:
        for name in ("wanted", "followers", "own", "model", "kept"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Followers:
    """The items that followed the newest items of each user, with shares of pairs.

    A share is the number of an item's pairs with a follower over the number of all its pairs. The shares of a user's
    items are added up, with weights that are halved every two moments into the past. `users` and `columns` int64 [n]
    are distinct pairs in the order of users; `shares` float32 [n, S].
    """

    def __init__(self, counts: StreamCounts, asked: Asked) -> None:
        moments, counted = earlier_places(asked.times_ms, asked.lengths)
        users, places = np.nonzero(counted & (asked.columns >= 0))
        columns = asked.columns[users, places]
        follows = counts.follows
        rows = np.where(
            columns < len(follows.row_of), np.append(follows.row_of, -1)[np.minimum(columns, len(follows.row_of))], -1
        )
        known = rows >= 0
        users, rows = users[known], rows[known]
        weights = np.exp2(-moments[users, places[known]] / _PLACE_HALF_LIFE).astype(np.float32)
        factors = counts.pair_factors(asked.now_ms)[users]  # [n, S]
        factors *= weights[:, None] / (follows.totals[rows] * factors + _PRIOR_PAIRS)
        followers = follows.followers[rows]  # [n, W]
        there = followers >= 0
        columns, users = followers[there].astype(np.int64), np.repeat(users, there.sum(1))
        shares = (follows.counts[rows] * factors[:, None, :])[there]  # [n, S]
        self._width = max(len(counts), 1)
        self._index = PairIndex(users * self._width + columns, len(asked) * self._width)
        new = self._index.new
        place = np.cumsum(new) - 1
        self._place = place  # of each pair's first occurrence among the distinct ones
        self.users, self.columns = users[new], columns[new]
        into = place[self._index.first]
        sums = [np.bincount(into, shares[:, s], len(self.users)) for s in range(shares.shape[1])]
        self.shares = np.stack(sums, 1).astype(np.float32)

    def _find(self, users: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """int64 [m] places of pairs among the distinct ones, -1 where there is no such pair."""
        if not len(self.users):
            return np.full(len(users), -1, dtype=np.int64)
        found = self._index.places(users * self._width + columns)
        return np.where(found >= 0, self._place[found], -1)

    def of(self, columns: np.ndarray) -> np.ndarray:
        """float32 [B, M, S]: the shares of candidates int64 [B, M] (-1: none); 0 for an item that followed none."""
        found = np.zeros((*columns.shape, self.shares.shape[1]), dtype=np.float32)
        users, places = np.nonzero((columns >= 0) & (columns < self._width))
        where = self._find(users, columns[users, places])
        hit = where >= 0
        found[users[hit], places[hit]] = self.shares[where[hit]]
        return found

    def best(self, users: int, count: int, hidden: Hidden) -> np.ndarray:
        """int64 [B, count] columns of each user's most likely followers that are not hidden; -1 where there are
        fewer."""
        best = np.full((users, count), -1, dtype=np.int64)
        if not len(self.users):
            return best
        totals = self.shares.sum(1)
        inside = hidden.columns < self._width
        barred = self._find(hidden.rows[inside], hidden.columns[inside])
        totals[barred[barred >= 0]] = 0
        # Positive floats have the same order as their bits, so one sort of integers sorts by user and falling share.
        order = np.argsort((self.users << 32) | (0x7F800000 - totals.view(np.int32).astype(np.int64)))
        order = order[totals[order] > 0]
        rows = self.users[order]
        nth = np.arange(len(rows)) - np.searchsorted(rows, np.arange(users))[rows]
        kept = nth < count
        best[rows[kept], nth[kept]] = self.columns[order[kept]]
        return best


def candidates(
    counts: StreamCounts, asked: Asked, followers: Followers, config: CandidateConfig, model: np.ndarray | None = None
) -> np.ndarray:
    """int64 [B, M]: the columns worth ranking for each user, each once and none hidden, with -1 at the end of a row.

    `model` int64 [B, K] are the model's own best in the columns of the counts, -1 for none.
    """
    users = len(asked)
    wanted = counts.most_wanted(config.wanted + _spare(asked))
    sources = [np.full((users, 0), -1, dtype=np.int64) if model is None else model[:, : config.model]]
    sources.append(asked.columns[:, : config.own])
    sources.append(np.broadcast_to(wanted, (users, len(wanted))))
    sources.append(followers.best(users, config.followers, asked.hidden))
    every = np.concatenate(sources, axis=1)
    kept = every >= 0
    rows, places = np.nonzero(kept)
    width = max(len(counts), int(every.max(initial=0)) + 1)
    index = PairIndex(rows * width + every[rows, places], users * width)
    kept[rows, places] = index.new
    inside = asked.hidden.columns < width
    barred = index.places(asked.hidden.rows[inside] * width + asked.hidden.columns[inside])
    barred = barred[barred >= 0]
    kept[rows[barred], places[barred]] = False  # the first place of an item; its other places were removed before
    nth = np.cumsum(kept, axis=1) - 1
    rows, places = np.nonzero(kept & (nth < config.kept))
    found = np.full((users, max(int(nth[:, -1].max(initial=-1)) + 1, 1) if every.shape[1] else 1), -1, dtype=np.int64)
    found = found[:, : config.kept]
    found[rows, nth[rows, places]] = every[rows, places]
    return found


def _spare(asked: Asked) -> int:
    """How many more of the most wanted items to take, because some of them are hidden from some users."""
    return int(min(np.bincount(asked.hidden.rows, minlength=1).max(), 64)) if len(asked.hidden.rows) else 0
