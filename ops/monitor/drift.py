"""Distances between two samples of counts, and how large they would be without any drift.

All statistics take two vectors of counts over the same bins: the current window x (n events) and the reference y
(m events). All of them contain sampling noise. Events are clustered by user, so a window of n events carries as much
information as n / deff independent events, and PSI of two samples of one distribution is about f * chi2(B - 1) with
f = deff_x / n + deff_y / m (Yurdakul & Naranjo, "Statistical properties of the population stability index", 2020).
Letters: B bins, G groups of events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtri

__all__ = [
    "Comparison",
    "compare",
    "critical_psi",
    "design_effect",
    "events_needed",
    "jensen_shannon",
    "ks_on_bins",
    "largest_move",
    "noise_factor",
    "psi",
    "rate_z",
    "shares",
]

Counts = npt.NDArray[np.int64] | npt.NDArray[np.float64]

DESIGN_EFFECTS = (1.0, 20.0)  # what an estimate is clamped to


def shares(counts: Counts) -> npt.NDArray[np.float64]:
    """Shares with half a count added to every bin, so that no share is 0.

    >>> shares(np.array([3, 0])).tolist()
    [0.875, 0.125]
    """
    return (counts + 0.5) / (counts.sum() + 0.5 * len(counts))


def psi(x: Counts, y: Counts) -> float:
    """Population stability index, natural logarithm: sum of (p - q) ln(p / q).

    >>> round(psi(np.array([50, 50]), np.array([50, 50])), 3), round(psi(np.array([70, 30]), np.array([500, 500])), 2)
    (0.0, 0.17)
    """
    p, q = shares(x), shares(y)
    return float(((p - q) * np.log(p / q)).sum())


def jensen_shannon(x: Counts, y: Counts) -> float:
    """Jensen-Shannon distance, base 2: 0 for equal shares, 1 for disjoint ones.

    >>> round(jensen_shannon(np.array([10_000, 0]), np.array([0, 10_000])), 2)
    1.0
    """
    p, q = shares(x), shares(y)
    mean = (p + q) / 2
    divergence = (p * np.log2(p / mean) + q * np.log2(q / mean)).sum() / 2
    return math.sqrt(max(float(divergence), 0.0))


def ks_on_bins(x: Counts, y: Counts) -> float:
    """Kolmogorov-Smirnov distance of ordered bins: the largest difference of the cumulative shares.

    >>> ks_on_bins(np.array([3, 1]), np.array([1, 3]))
    0.5
    """
    return float(np.abs(np.cumsum(x) / x.sum() - np.cumsum(y) / y.sum()).max())


def largest_move(x: Counts, y: Counts) -> float:
    """L-infinity: the largest change of one bin's share. In a sum over many bins, a single large change is hard to see.

    >>> largest_move(np.array([6, 4]), np.array([5, 5]))
    0.09999999999999998
    """
    return float(np.abs(x / x.sum() - y / y.sum()).max())


def design_effect(groups: Counts) -> float:
    """How many of these events carry as much information as one independent event, from counts [G, B] of G groups.

    Without clustering, the groups differ as independent samples do, and Pearson's statistic of the table is about equal
    to its degrees of freedom; the ratio of the two is Rao & Scott's first-order correction (1981). The groups must be
    of the same kind as the window that is judged: earlier windows of the same length. The result is clamped to
    `DESIGN_EFFECTS`.

    >>> independent = np.random.default_rng(0).multinomial(1000, [0.1] * 10, size=8)
    >>> round(design_effect(independent), 1)
    1.0
    >>> round(design_effect(3 * independent), 1)  # every event three times
    3.1
    """
    low, high = DESIGN_EFFECTS
    table = groups[groups.sum(axis=1) > 0][:, groups.sum(axis=0) > 0].astype(np.float64)
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    if freedom < 1:
        return low
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    pearson = ((table - expected) ** 2 / expected).sum()
    return float(min(max(pearson / freedom, low), high))


def noise_factor(n: float, m: float, deff_n: float = 1.0, deff_m: float = 1.0) -> float:
    """f of the module's docstring: the variance of a share's difference, relative to that of one event."""
    return deff_n / n + deff_m / m


def critical_psi(factor: float, bins: int, alpha: float) -> float:
    """The value that PSI exceeds with probability `alpha` when there is no drift.

    >>> round(critical_psi(noise_factor(2_000, 20_000), 65, 0.01), 3)
    0.051
    """
    return factor * float(chdtri(bins - 1, alpha))


def events_needed(bins: int, deff: float, warning: float) -> int:
    """Events of a window for which noise alone stays at a quarter of the warning line.

    >>> events_needed(65, 1.6, 0.1), events_needed(10, 1.6, 0.1)
    (4096, 576)
    """
    return math.ceil(4 * deff * (bins - 1) / warning)


def rate_z(hits: float, n: float, reference_hits: float, m: float, deff_n: float = 1.0, deff_m: float = 1.0) -> float:
    """Two-proportion z, corrected for clustering; 0 when neither sample has a hit or both are all hits.

    >>> round(rate_z(60, 1000, 200, 10_000), 1)
    7.9
    """
    pooled = (hits + reference_hits) / (n + m)
    variance = pooled * (1 - pooled) * noise_factor(n, m, deff_n, deff_m)
    return 0.0 if variance <= 0 else (hits / n - reference_hits / m) / math.sqrt(variance)


@dataclass(frozen=True)
class Comparison:
    """A window compared with a reference. `n` and `m` are numbers of events; all else is computed from shares."""

    n: int
    m: float
    psi: float
    jsd: float
    ks: float
    linf: float
    excess: float  # PSI beyond its expectation without drift
    critical: float  # the quantile of PSI without drift
    ks_critical: float
    linf_critical: float

    @property
    def significant(self) -> bool:
        return self.psi >= self.critical


def compare(x: Counts, y: Counts, deff_x: float = 1.0, deff_y: float = 1.0, alpha: float = 0.003) -> Comparison:
    """Compare counts [B] of a window with those of a reference; bins empty in both are left out.

    >>> rng = np.random.default_rng(0)
    >>> zipf = 1 / np.arange(1, 66) / (1 / np.arange(1, 66)).sum()
    >>> same = compare(rng.multinomial(500, zipf), rng.multinomial(500, zipf))
    >>> same.psi > 0.1, same.significant, same.excess < 0.1  # the usual limit of 0.1 alone would be a false alarm
    (True, False, True)
    """
    used = (x + y) > 0
    x, y = x[used], y[used]
    n, m, bins = float(x.sum()), float(y.sum()), int(used.sum())
    if n <= 0 or m <= 0:
        raise ValueError(f"both samples need events, got {n:.0f} in the window and {m:.0f} in the reference")
    if bins < 2:
        return Comparison(int(n), m, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0)
    factor = noise_factor(n, m, deff_x, deff_y)
    value = psi(x, y)
    mover = int(np.abs(x / n - y / m).argmax())
    pooled = float(x[mover] + y[mover]) / (n + m)
    return Comparison(
        n=int(n),
        m=m,
        psi=value,
        jsd=jensen_shannon(x, y),
        ks=ks_on_bins(x, y),
        linf=largest_move(x, y),
        excess=value - factor * (bins - 1),
        critical=critical_psi(factor, bins, alpha),
        ks_critical=math.sqrt(-0.5 * math.log(alpha / 2) * factor),
        linf_critical=-float(ndtri(alpha / (2 * bins))) * math.sqrt(pooled * (1 - pooled) * factor),
    )
