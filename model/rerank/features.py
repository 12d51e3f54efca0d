"""Features of candidates and users, on scales that a small network can learn from.

Legend: B users, M candidates, F features of a candidate, G features of a user, S sums of a pair, H half-lives.
"""

from __future__ import annotations

import numpy as np

from model.rerank.asked import VISIT_MS, Asked
from model.rerank.candidates import Followers
from model.rerank.counts import CountsConfig, StreamCounts
from model.rerank.decay import DAY_MS

__all__ = ["USER_FEATURES", "feature_names", "item_features", "start_weights", "user_features"]

_HOUR_MS = 3_600_000.0
_LEAST_DEMAND = 0.02  # events: below this an item counts as not wanted
_LEAST_SHARE = 0.003
_OWN = ("met", "times", "days since", "moments since", "days since over the usual gap")
_MODEL = ("known", "network", "network above its mean", "item-item", "item-item above its mean")
USER_FEATURES = (
    "one", "no history", "one item", "2 to 5 items", "history items", "hours since the last", "within 6 hours",
    "items of this visit", "hour sine", "hour cosine", "day sine", "day cosine", "share of repeats",
)  # fmt: skip


def feature_names(config: CountsConfig) -> tuple[str, ...]:
    """Names of the F features of a candidate, in order; those of demand come first."""
    demand = [f"demand of {days:g} days" if days else "demand" for days in config.demand_days]
    pairs = [f"{name} pairs of {days:g} days" for name in ("close", "distant") for days in config.pair_days]
    return (*demand, "age", "last event", *pairs, *_OWN, *_MODEL)


def start_weights(config: CountsConfig, demand: int) -> np.ndarray:
    """float32 [F]: the start weights of an untrained reranker. It orders by the logarithm of the demand with the
    half-life at place `demand`, as popularity does."""
    weights = np.zeros(len(feature_names(config)), dtype=np.float32)
    weights[demand] = 1.0
    return weights


def item_features(
    counts: StreamCounts, asked: Asked, followers: Followers, columns: np.ndarray, scores: np.ndarray | None
) -> np.ndarray:
    """float32 [B, M, F] of candidates int64 [B, M] (-1: none).

    `scores` float32 [B, M, 2] are the z-scores of the network and of the item-item term, NaN for items that the model
    does not know; None without a model.
    """
    place, now_ms = np.maximum(columns, 0), asked.now_ms
    sums, halves = followers.shares.shape[1], counts.demand.shape[1]
    parts = np.split(
        features := np.zeros((*columns.shape, halves + 2 + sums + len(_OWN) + len(_MODEL)), dtype=np.float32),
        np.cumsum([halves, 2, sums, len(_OWN)]),
        axis=-1,
    )
    demand, ages, pairs, own, model = parts
    factors = counts.demand_factors(now_ms)[:, None, :]
    np.multiply(counts.demand[place], factors, out=demand, casting="same_kind")
    np.log(np.maximum(demand, 0, out=demand) + _LEAST_DEMAND, out=demand)
    first_ms, last_ms = counts.first_ms[place], counts.last_ms[place]
    counted = first_ms > 0
    for age, since, unit in ((0, first_ms, DAY_MS), (1, last_ms, _HOUR_MS)):
        passed = np.where(counted, np.maximum(now_ms[:, None] - since, 0), 0).astype(np.float32)
        ages[..., age] = np.log1p(passed / np.float32(unit)) - 2
    np.log(np.maximum(followers.of(columns), 0) + _LEAST_SHARE, out=pairs)
    pairs += 3
    _own(asked, columns, own)
    if scores is not None:
        _model(scores, model)
    return features


def _model(scores: np.ndarray, out: np.ndarray) -> None:
    known = ~np.isnan(scores[..., 0])
    network, item_item = (np.where(known, scores[..., term], np.float32(0)) for term in (0, 1))
    out[..., 0], out[..., 1] = known, network / 2
    out[..., 2] = np.log1p(np.maximum(network, 0))
    out[..., 3] = np.clip(item_item, -4, 8) / 2
    out[..., 4] = np.log1p(np.maximum(item_item, 0))


def _own(asked: Asked, columns: np.ndarray, out: np.ndarray) -> None:
    """Write into `out` [B, M, 5], which holds zeros, the features of the user's earlier interactions with
    candidates."""
    # Find the candidates that are in the history: few, or none where no item may be listed again.
    width, limit = asked.columns.shape[1], np.int64(1) << 40
    rows = np.arange(len(asked))[:, None] * limit
    held = (np.where(asked.columns < 0, limit - 1, asked.columns) + rows).ravel()
    order = np.argsort(held)
    held = held[order]
    wanted = (np.where(columns < 0, limit - 2, columns) + rows).ravel()
    found = np.minimum(np.searchsorted(held, wanted), held.size - 1)
    where = np.flatnonzero(held[found] == wanted)
    if not len(where):
        return
    users, place = np.divmod(order[found[where]], width)
    moments = np.cumsum(np.diff(asked.times_ms, prepend=asked.times_ms[:, :1], axis=1) != 0, axis=1)
    since = np.maximum(asked.now_ms[users] - asked.times_ms[users, place], 0) / DAY_MS
    times = np.ones(len(where)) if asked.times is None else asked.times[users, place]
    gaps = np.full(len(where), np.nan) if asked.gaps_ms is None else asked.gaps_ms[users, place] / DAY_MS
    usual = np.where(np.isnan(gaps), 0, gaps) + 0.5
    values = [np.ones(len(where)), np.log1p(times), np.log1p(since), np.log1p(moments[users, place] + 1)]
    out[np.divmod(where, columns.shape[1])] = np.stack([*values, np.log1p(since / usual)], 1)


def user_features(asked: Asked) -> np.ndarray:
    """float32 [B, G]: features of the user, and of the time that a list is for."""
    lengths, now_ms = asked.lengths, asked.now_ms
    valid = np.arange(asked.times_ms.shape[1]) < lengths[:, None]
    newest_ms = np.where(lengths > 0, asked.times_ms[:, 0], now_ms)
    hours = np.maximum(now_ms - newest_ms, 0) / _HOUR_MS
    visit = (valid & (now_ms[:, None] - asked.times_ms < VISIT_MS)).sum(1)
    times = valid if asked.times is None else np.where(valid, asked.times, 0)
    repeats = 1 - lengths / np.maximum(times.sum(1), 1)
    day, week = (2 * np.pi * (now_ms % period) / period for period in (DAY_MS, 7 * DAY_MS))
    some = lengths > 0
    columns = [
        np.ones(len(lengths)), lengths == 0, lengths == 1, (lengths >= 2) & (lengths <= 5), np.log1p(lengths) / 2,
        np.where(some, np.log1p(hours) / 3, 0), some & (hours < 6), np.log1p(visit),
        np.sin(day), np.cos(day), np.sin(week), np.cos(week), np.where(some, repeats, 0),
    ]  # fmt: skip
    return np.stack(columns, 1).astype(np.float32)
