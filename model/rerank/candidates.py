"""The few items worth ranking for a user, and what the stream knows about each of them.

Candidates are what everybody wants now, what followed the user's newest items, what the user may meet again, and the
model's own best. The cost depends on their number, not on the size of the catalogue.

Legend: B users, L places of a history, M candidates, S sums of a pair, n users times their distinct followers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.ranker import Hidden
from model.rerank.asked import Asked, earlier_places
from model.rerank.counts import StreamCounts

__all__ = ["CandidateConfig", "Followers", "candidates"]

_PLACE_HALF_LIFE = 2.0  # moments after which what an item says of the next one is worth half
_PRIOR_PAIRS = 1.0  # added to the pairs of an item, so that a share of few pairs stays small
_ROW = 40  # bits of a key that hold a column; those above hold the user's row
_NONE = (1 << _ROW) - 1  # no column, and behind all of them


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
    """What followed the newest items of each user: for every follower, the shares of pairs that speak for it.

    An item's pairs with a follower, over all its pairs, is a share; shares of a user's items are summed, halved every
    two moments into the past. `keys` int64 [n] are row and column in one number, ascending; `shares` float32 [n, S].
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
        keys = np.where(followers < 0, np.int64(_NONE), followers) + (users << _ROW)[:, None]
        shares = follows.counts[rows] * factors[:, None, :]  # [n, W, S]
        keys, shares = keys.ravel(), shares.reshape(-1, shares.shape[2])
        order = np.argsort(keys)
        keys = keys[order]
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.empty(0, dtype=np.int64)
        self.keys = keys[starts]
        self.shares = np.add.reduceat(shares[order], starts) if len(starts) else shares
        empty = (self.keys & _NONE) == _NONE
        if empty.any():
            self.keys, self.shares = self.keys[~empty], self.shares[~empty]

    def of(self, columns: np.ndarray) -> np.ndarray:
        """float32 [B, M, S]: the shares of candidates int64 [B, M] (-1: none); 0 for what followed nothing."""
        if not len(self.keys):
            return np.zeros((*columns.shape, self.shares.shape[1]), dtype=np.float32)
        wanted = np.where(columns < 0, _NONE, columns) + (np.arange(len(columns)) << _ROW)[:, None]
        place = np.minimum(np.searchsorted(self.keys, wanted.ravel()), len(self.keys) - 1)
        found = self.shares[place]
        found[self.keys[place] != wanted.ravel()] = 0
        return found.reshape(*columns.shape, -1)

    def best(self, users: int, count: int, hidden: Hidden) -> np.ndarray:
        """int64 [B, count] columns of each user's most likely followers that are not hidden; -1 where there are
        fewer."""
        best = np.full((users, count), -1, dtype=np.int64)
        if not len(self.keys):
            return best
        totals = self.shares.sum(1)
        totals[_found(self.keys, (hidden.rows << _ROW) + hidden.columns)] = 0
        # Positive floats order like their bits: one sort by user and falling share.
        order = np.argsort((self.keys >> _ROW << 32) | (0x7F800000 - totals.view(np.int32).astype(np.int64)))
        order = order[totals[order] > 0]
        rows = self.keys[order] >> _ROW
        first = np.searchsorted(rows, np.arange(users))
        nth = np.arange(len(rows)) - first[rows]
        kept = nth < count
        best[rows[kept], nth[kept]] = self.keys[order[kept]] & _NONE
        return best


def _found(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Places in `keys`, ascending, of those `wanted` that are there."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place[keys[place] == wanted]


def candidates(
    counts: StreamCounts, asked: Asked, followers: Followers, config: CandidateConfig, model: np.ndarray | None = None
) -> np.ndarray:
    """int64 [B, M] columns worth ranking for each user, each once, -1 at the end of a row; none is hidden.

    `model` int64 [B, K] are the model's own best in the columns of the counts, -1 for none.
    """
    users = len(asked)
    wanted = counts.most_wanted(config.wanted + _spare(asked))
    sources = [np.full((users, 0), -1, dtype=np.int64) if model is None else model[:, : config.model]]
    sources.append(asked.columns[:, : config.own])
    sources.append(np.broadcast_to(wanted, (users, len(wanted))))
    sources.append(followers.best(users, config.followers, asked.hidden))
    every = np.concatenate(sources, axis=1)
    keys = np.where(every < 0, _NONE, every) + (np.arange(users) << _ROW)[:, None]
    flat = keys.ravel()
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    again = np.r_[False, ordered[1:] == ordered[:-1]] | ((ordered & _NONE) == _NONE)
    dropped = np.zeros(len(flat), dtype=bool)
    dropped[order[again]] = True
    if len(asked.hidden.rows):
        hidden = np.sort((asked.hidden.rows << _ROW) + asked.hidden.columns)
        place = np.minimum(np.searchsorted(hidden, flat), len(hidden) - 1)
        dropped |= hidden[place] == flat
    kept = ~dropped.reshape(every.shape)
    nth = np.cumsum(kept, axis=1) - 1
    rows, places = np.nonzero(kept & (nth < config.kept))
    found = np.full((users, max(int(nth[:, -1].max(initial=-1)) + 1, 1) if every.shape[1] else 1), -1, dtype=np.int64)
    found = found[:, : config.kept]
    found[rows, nth[rows, places]] = every[rows, places]
    return found


def _spare(asked: Asked) -> int:
    """Most wanted items to ask for beyond the number, because some of them are hidden from some users."""
    return int(min(np.bincount(asked.hidden.rows, minlength=1).max(), 64)) if len(asked.hidden.rows) else 0
