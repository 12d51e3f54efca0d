"""How good a ranking is: all items ranked, per user, compared in pairs.

Legend: B users, K the length of the lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import lambertw

from model.batch import Histories
from model.ranker import Ranked

__all__ = [
    "Interval",
    "Ranker",
    "allowed_loss",
    "confidence_sequence",
    "mixture_bound",
    "ndcg",
    "paired_bootstrap",
    "ranks_hit",
    "recall",
]


_Z95, _Z80 = 1.96, 0.84  # standard normal quantiles: a two-sided 95 % interval, and a power of 80 %


class Ranker(Protocol):
    """What every model and baseline can do."""

    def rank(self, histories: Histories, k: int) -> Ranked:
        """Columns and scores [B, K] of the best unseen items of B users."""
        ...


def ranks_hit(ranked: Ranked, held_out: Histories) -> np.ndarray:
    """bool [B, K]: whether the item at each rank is among the user's held-out ones."""
    width = int(max(ranked.columns.max(initial=-1), held_out.columns.max(initial=-1))) + 2
    users = np.arange(len(held_out))
    wanted = np.unique(np.repeat(users, held_out.lengths) * width + held_out.columns)
    return np.isin(users[:, None] * width + np.where(ranked.columns < 0, width - 1, ranked.columns), wanted)


def recall(hits: np.ndarray, held_out: np.ndarray, k: int) -> np.ndarray:
    """[B] of hits bool [B, K]: hits in the first k over the number of held-out items [B]; NaN for users without any."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(held_out > 0, hits[:, :k].sum(1) / held_out, np.nan)


def ndcg(hits: np.ndarray, held_out: np.ndarray, k: int) -> np.ndarray:
    """[B] discounted gain, 1 / log2(rank + 1) of hits bool [B, K], of the first k over that of the best possible list;
    NaN for users without held-out items."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[np.nan], np.cumsum(discount)])[np.minimum(held_out, k)]
    return (hits[:, :k] * discount).sum(1) / best


@dataclass(frozen=True)
class Interval:
    """A mean difference and its interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    a: np.ndarray,
    b: np.ndarray,
    rng: np.random.Generator,
    *,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
    rounds: int = 2000,
) -> Interval:
    """Mean of a - b over the rows [B] measured under both, with a percentile bootstrap interval.

    Rows are resampled one by one or, with `groups` int [B] such as the user of each question, whole groups at a time:
    questions of one user are alike, and resampled alone they would make the interval too narrow.
    """
    measured = ~np.isnan(a - b)
    difference = (a - b)[measured]
    if not len(difference):
        raise ValueError("no user was measured under both")
    if groups is None:
        sums, counts = difference, np.ones(len(difference))
    else:
        _, group = np.unique(groups[measured], return_inverse=True)
        sums, counts = np.bincount(group, difference), np.bincount(group).astype(np.float64)
    means = []
    for _ in range(rounds // 100):
        drawn = rng.integers(len(sums), size=(100, len(sums)))
        means.append(sums[drawn].mean(1) if groups is None else sums[drawn].sum(1) / counts[drawn].sum(1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Interval(float(difference.mean()), float(low), float(high))


def allowed_loss(margin: float, mean: float, low: float) -> float:
    """How far the low end of a 95 % interval around `mean` may lie below 0, if a loss of `margin` is allowed.

    With few questions the interval is wider than any small margin. The result is then the margin with which an equal
    candidate passes four times in five.
    """
    return max(margin, (mean - low) * (_Z95 + _Z80) / _Z95)


def confidence_sequence(
    differences: np.ndarray, *, confidence: float = 0.95, tightest_at: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(Running means [n] of paired differences [n] in the order of observation, distances [n] to their bounds).

    Take, for each difference, its conditional expectation given all differences before it. With the given confidence,
    the running mean of these expectations lies inside mean +- distance at *every* n at once. So the interval may be
    read at any time and as often as wanted, and differences may depend on earlier ones, as those of one user do. The
    guarantee is asymptotic (Waudby-Smith, Arbour,
    Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of
    Statistics 52(6), 2024, the Lyapunov-type sequence of martingale differences).

    The distance is shortest where the sum of the variances is `tightest_at`, which must not come from the differences;
    by default a twentieth of n, as hits of two good rankers give half-way.
    """
    count = np.arange(1, len(differences) + 1)
    mean = np.cumsum(differences) / count
    variance_sum = np.maximum(np.cumsum(np.square(differences)) - count * np.square(mean), 0.0)
    best = max(len(differences) / 20 if tightest_at is None else tightest_at, 1e-9)
    return mean, mixture_bound(variance_sum, 1 - confidence, best) / count


def mixture_bound(variance_sum: np.ndarray, alpha: float, tightest_at: float) -> np.ndarray:
    """How far a sum may be from its expectation, given the sum of its variances: the probability that Brownian motion
    is ever further away, in either direction, is at most `alpha` (the normal mixture of Robbins 1970). Relative to the
    standard deviation, the bound is lowest where the sum of the variances is `tightest_at`."""
    rho_squared = float(-lambertw(-(alpha**2) * np.exp(-1), -1).real - 1) / tightest_at
    scaled = variance_sum * rho_squared + 1
    return np.sqrt(2 * scaled * np.log(np.sqrt(scaled) / alpha) / rho_squared)
