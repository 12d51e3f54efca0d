"""Change detectors that take one outcome, or one block of outcomes, at a time.

Each of them limits its rate of errors over a whole stream, unlike a significance test that is repeated on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

__all__ = ["Adwin", "BernoulliCusum", "McNemarEvidence", "SequentialTest"]


class BernoulliCusum:
    """Detects a fall of the hit rate from `rate` to `ratio * rate` (Page 1954).

    The statistic is the log-likelihood ratio of such a fall, which began at the moment that makes it most likely. The
    mean number of outcomes until a false alarm is at least e^h (Lorden 1971); by default it is 100,000.

    >>> import numpy as np
    >>> outcomes = np.random.default_rng(1).random(30_000) < np.repeat([0.1, 0.07], 15_000)
    >>> cusum = BernoulliCusum(rate=0.1)
    >>> next(number for number, hit in enumerate(outcomes.tolist()) if cusum.update(hit))
    17848
    """

    def __init__(self, rate: float, ratio: float = 0.8, h: float = math.log(1e5)) -> None:
        if not 0 < rate < 1 or not 0 < ratio * rate < 1 or ratio == 1:
            raise ValueError(f"rate and ratio * rate must differ and lie in (0, 1), got rate {rate} and ratio {ratio}")
        self.rate, self.h = rate, h
        self._hit = math.log(ratio)
        self._miss = math.log((1 - ratio * rate) / (1 - rate))
        self.statistic = 0.0
        self.since = 0  # outcomes since the statistic was last zero: the likely time of the change

    def update(self, hit: bool) -> bool:
        """Add one outcome; True while the alarm is on."""
        return self.add(int(hit), int(not hit))

    def add(self, hits: int, misses: int) -> bool:
        """Add a block of outcomes in unknown order. It counts as one step, so the bound on false alarms holds."""
        self.statistic += hits * self._hit + misses * self._miss
        self.since += hits + misses
        if self.statistic <= 0:
            self.statistic, self.since = 0.0, 0
        return self.alarm

    @property
    def alarm(self) -> bool:
        return self.statistic >= self.h

    @property
    def ratio(self) -> float:
        """The statistic as a share of its threshold: the alarm is on from 1 on."""
        return self.statistic / self.h

    def reset(self) -> None:
        self.statistic, self.since = 0.0, 0


class SequentialTest:
    """Decides between two rates of hits (Wald 1945). Each of the two errors has a probability of at most `error`.

    >>> test = SequentialTest(null=0.7, alternative=0.5, error=0.001)
    >>> test.add(hits=11, misses=9), test.add(hits=50, misses=50)
    (None, 'alternative')
    """

    def __init__(self, null: float, alternative: float, error: float) -> None:
        if not 0 < alternative < 1 or not 0 < null < 1 or alternative == null:
            raise ValueError(f"two different rates in (0, 1) are needed, got {null} and {alternative}")
        self._hit = math.log(alternative / null)
        self._miss = math.log((1 - alternative) / (1 - null))
        self._bound = math.log((1 - error) / error)
        self.statistic = 0.0

    def add(self, hits: int, misses: int) -> Literal["null", "alternative"] | None:
        self.statistic += hits * self._hit + misses * self._miss
        if self.statistic >= self._bound:
            return "alternative"
        return "null" if self.statistic <= -self._bound else None


class McNemarEvidence:
    """Evidence that A answers the same events worse than B. It is valid however often it is looked at.

    Only discordant events count: `against` when only B hit, `in_favour` when only A hit. Under the hypothesis "A is not
    worse", the wealth of a bettor who stakes a share l of it against A on every such event is a non-negative
    supermartingale. So is the mean wealth over several l, which exceeds 1/alpha with probability at most alpha
    (Ville 1939).

    >>> evidence = McNemarEvidence(alpha=0.001)
    >>> evidence.add(against=30, in_favour=30), evidence.add(against=60, in_favour=10)
    (False, True)
    """

    def __init__(self, alpha: float = 0.001, stakes: Sequence[float] = (0.1, 0.2, 0.4)) -> None:
        if not 0 < alpha < 1 or not all(0 < stake < 1 for stake in stakes):
            raise ValueError(f"alpha and every stake must lie in (0, 1), got {alpha} and {tuple(stakes)}")
        self.alpha, self._stakes = alpha, tuple(stakes)
        self.against = self.in_favour = 0

    def add(self, against: int, in_favour: int) -> bool:
        """Add a block of discordant events, in any order; True while the evidence is sufficient."""
        self.against += against
        self.in_favour += in_favour
        return self.ratio >= 1

    @property
    def log_wealth(self) -> float:
        logs = [self.against * math.log1p(l) + self.in_favour * math.log1p(-l) for l in self._stakes]  # noqa: E741
        top = max(logs)
        return top + math.log(sum(math.exp(log - top) for log in logs) / len(logs))

    @property
    def ratio(self) -> float:
        """Wealth times alpha: the evidence is sufficient from 1 on."""
        return math.exp(min(self.log_wealth + math.log(self.alpha), 700.0))


class Adwin:
    """River's ADWIN (Bifet & Gavalda 2007): a window that shrinks when its older and newer parts differ. It needs no
    reference.

    River is imported at the first use: `river.drift` imports scipy.stats, which takes over a second and 100 MB.
    """

    def __init__(self, delta: float = 0.002, clock: int = 32) -> None:
        from river.drift import ADWIN

        self._make = lambda: ADWIN(delta=delta, clock=clock)
        self._adwin: Any = self._make()

    def update(self, value: float) -> Literal["up", "down"] | None:
        """Add a value. Returns the direction of a change when one is detected, else None."""
        before = self._adwin.estimation
        self._adwin.update(value)
        if not self._adwin.drift_detected:
            return None
        return "up" if self._adwin.estimation > before else "down"

    @property
    def events(self) -> int:
        return int(self._adwin.width)

    def reset(self) -> None:
        self._adwin = self._make()
