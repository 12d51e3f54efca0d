"""The difference between the results of two variants, with bounds that are valid at any time and for any number of
looks.

Outcomes of one user are correlated, and users differ in their number of events. So the unit is the user, in buckets by
hash: the variance of a difference of two ratios is that of its influence function, summed by bucket over all stages; in
these, a user may have been on both sides. The two sides are compared within each stage, and the stages are averaged
with weights n m / (n + m) of their outcomes (Mantel and Haenszel), so that a hit rate that changes for all users does
not count as a difference between variants.

The bounds are a normal mixture in the scale of information 1 / variance. For an estimator whose covariance with its own
later value is at least the later variance, the score process crosses such a bound no more often than Brownian motion
does (Slepian 1962). That holds with equality for a steady stream of independent users (the canonical joint distribution
of group sequential tests), also when each of them acts again and again. The guarantee is asymptotic, as for every
sequence with an estimated variance. Therefore there is no interval before `LEAST` buckets have outcomes on each side
(with `same`: outcomes that differ), and between different users an interval is never narrower than one for independent
outcomes would be.

Legend: S stages, J buckets, R ranks with misses in column 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from model.evaluate import Interval, mixture_bound
from stream.pilots.counts import RANKS

__all__ = ["GAINS", "LEAST", "Metric", "Pair", "difference", "rate"]

Metric = Literal["hit rate", "NDCG"]
Pair = tuple[np.ndarray, np.ndarray]  # ranks int64 [J, 1 + R] of two variants in one stage

# The gain of an item at each rank of a list.
GAINS: Final[dict[Metric, np.ndarray]] = {
    "hit rate": np.array([0.0] + [1.0] * RANKS),
    "NDCG": np.concatenate([[0.0], 1 / np.log2(np.arange(2, RANKS + 2))]),
}
LEAST: Final = 20

_VISIBLE = 4.0  # about how many standard errors a difference has when it is shown at last
_SCALES = (1, 4, 16)  # of the difference: each has a bound with an equal part of alpha, and the narrowest one is used


def rate(tables: Sequence[np.ndarray], metric: Metric) -> float | None:
    """The mean gain per outcome; None without outcomes."""
    counts = sum(table.sum(0) for table in tables) if tables else np.zeros(RANKS + 1)
    return float(counts @ GAINS[metric] / counts.sum()) if counts.sum() else None


def difference(
    pairs: Sequence[Pair], metric: Metric, *, alpha: float, shown: float, same: bool = False
) -> Interval | None:
    """The first minus the second of each pair, over stages; None while there are too few outcomes.

    `alpha` is the probability that the true difference is ever outside of the bounds. The bounds are tightest for a
    difference of `shown`, and for 4 and 16 times as much, so that great harm is found while few users are affected.
    `same`: both sides of a pair are ranks for the same events.
    """
    gain = GAINS[metric]
    pairs = [pair for pair in pairs if pair[0].sum() and pair[1].sum()]
    if not pairs:
        return None
    events = np.array([[side.sum() for side in pair] for pair in pairs], dtype=np.float64)  # [S, 2]
    weights = events[:, 0] * events[:, 1] / events.sum(1)
    weights /= weights.sum()
    mean, floor = 0.0, 0.0
    influence = np.zeros(len(pairs[0][0]))  # [J]
    differing = np.zeros((2, len(influence)), dtype=bool)
    for weight, (n, m), pair in zip(weights, events, pairs, strict=True):
        rates = [float((side @ gain).sum() / count) for side, count in zip(pair, (n, m), strict=True)]
        mean += weight * (rates[0] - rates[1])
        for sign, side, count, own in ((1, pair[0], n, rates[0]), (-1, pair[1], m, rates[1])):
            influence += sign * weight * (side @ gain - own * side.sum(1)) / count
        both = pair[0].sum(0) + pair[1].sum(0)
        pooled = float(both @ gain / both.sum())
        floor += weight**2 * float(both @ np.square(gain - pooled) / both.sum()) * (1 / n + 1 / m)
        if same:
            differing |= (pair[0] != pair[1]).any(1)
        else:
            differing |= np.array([side.sum(1) > 0 for side in pair])
    clusters = int(differing.sum(1).min())
    if clusters < LEAST:
        return None
    variance = float(np.square(influence).sum()) * clusters / (clusters - 1)
    variance = variance if same else max(variance, floor)
    if variance <= 0:
        return None
    information = 1 / variance
    distance = min(
        float(mixture_bound(np.array(information), alpha / len(_SCALES), (_VISIBLE / (shown * scale)) ** 2))
        for scale in _SCALES
    )
    distance /= information
    mean = float(mean)
    return Interval(mean, mean - distance, mean + distance)
