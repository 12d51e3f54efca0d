"""Watches whether the model is still good and, if it is not, whether the model or the demand has changed.

An outcome says whether the list that was published before an event hit the event's item. The same event is also tested
on other lists: the popularity list of that moment and, for some users, the list of the previous model. When hits fall
and the paired difference to popularity stays, demand has changed: a round of training is needed. When the difference
falls, too, the model has become worse: it must be rolled back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ops.labels import Variant, Verdict
from ops.monitor.detectors import Adwin, BernoulliCusum, McNemarEvidence, SequentialTest

__all__ = ["Detection", "OutcomeMonitor", "PairedCounts", "QualityConfig", "QualityMonitor", "Verdict"]


@dataclass(frozen=True)
class QualityConfig:
    ratio: float = 0.8
    """Fall of the hit rate that the detectors are built for: to this share of what it was."""
    h: float = math.log(1e5)
    """Threshold of the detectors; the mean number of outcomes to a false alarm is at least e to this power."""
    reference_events: int = 5_000
    """Outcomes after a promotion that say what is normal."""
    longest_reference: int = 40_000
    """Most outcomes that say what is normal, as long as nothing is suspected."""
    error: float = 0.001
    """Probability of mistaking a change of demand for a fault of the model, or the other way round."""
    rollback_alpha: float = 0.001
    """Level of the test that a rollback needs."""
    pause_ms: int = 600_000
    """Event time within which the outcomes of one user count once, so that outcomes are independent."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio must be in (0, 1), got {self.ratio}")
        if self.reference_events < 100:
            raise ValueError(f"reference_events must be at least 100, got {self.reference_events}")


@dataclass(frozen=True)
class PairedCounts:
    """How many events both lists, only the first, only the second, or neither of them hit."""

    both: int = 0
    first: int = 0
    second: int = 0
    neither: int = 0

    @staticmethod
    def of(first: bool, second: bool) -> PairedCounts:
        return PairedCounts(first and second, first and not second, second and not first, not (first or second))

    @property
    def events(self) -> int:
        return self.both + self.first + self.second + self.neither

    @property
    def hits(self) -> int:
        """Events that the first list hit."""
        return self.both + self.first

    def __add__(self, other: PairedCounts) -> PairedCounts:
        return PairedCounts(
            self.both + other.both,
            self.first + other.first,
            self.second + other.second,
            self.neither + other.neither,
        )


class QualityMonitor:
    """The live model's outcomes since its promotion, in blocks of any size; the first ones tell what is normal.

    `verdict` is "suspected" once the hit rate has fallen, until it is clear whether the advantage over popularity fell
    with it ("model") or not ("demand"). `rollback` is the evidence that the previous model would have answered the same
    events better.

    >>> monitor = QualityMonitor(QualityConfig(reference_events=1000))
    >>> monitor.add(PairedCounts(both=50, first=100, second=50, neither=800))
    'ok'
    >>> monitor.add(PairedCounts(both=60, first=10, second=140, neither=1790))
    'model'
    """

    def __init__(self, config: QualityConfig) -> None:
        self.config = config
        self.reset()

    def reset(self) -> None:
        """A new model is live, or the old one is back: forget everything."""
        self.verdict: Verdict = "ok"
        self.rollback = McNemarEvidence(self.config.rollback_alpha)
        self._normal = PairedCounts()
        self._next_reference = self.config.reference_events
        self._hits: BernoulliCusum | None = None
        self._advantage: BernoulliCusum | None = None
        self._test: SequentialTest | None = None
        self._since = PairedCounts()  # since the hit rate's CUSUM was last zero

    @property
    def cusum_ratio(self) -> float:
        return self._hits.ratio if self._hits else 0.0

    def add(self, against_popularity: PairedCounts) -> Verdict:
        """Add outcomes of the live model (first) and popularity (second)."""
        if self.verdict in ("model", "demand"):
            return self.verdict
        counts = against_popularity
        if self._hits is None:
            self._learn(counts)
            return self.verdict
        alarm = self._hits.add(counts.hits, counts.events - counts.hits)
        self._since = self._since + counts if self._hits.since or self._test else PairedCounts()
        if self._advantage is not None and self._advantage.add(counts.first, counts.second):
            self.verdict = "model"
        elif self._test is not None:
            self._decide(counts)
        elif alarm:
            self.verdict = "suspected"
            self._test = self._discordant_test()
            self._decide(self._since)
        elif self._hits.ratio < 0.25 and self._normal.events < self.config.longest_reference:
            self._learn(counts)
        return self.verdict

    def add_previous(self, against_previous: PairedCounts) -> bool:
        """Add outcomes of the live model (first) and the previous one (second); True when the latter must be live
        again."""
        return self.rollback.add(against_previous.second, against_previous.first)

    def _learn(self, counts: PairedCounts) -> None:
        self._normal += counts
        if self._normal.events >= self._next_reference and self._normal.hits > 0:
            self._begin()

    def _begin(self) -> None:
        config, normal = self.config, self._normal
        self._next_reference = 2 * normal.events
        self._since = PairedCounts()
        self._hits = BernoulliCusum(_lower(normal.hits, normal.events), config.ratio, config.h)
        discordant = normal.first + normal.second
        # With hardly any discordant pairs the lists are the same, and a fall of hits can only be demand.
        if normal.first >= 10 and normal.second >= 1:
            self._advantage = BernoulliCusum(_lower(normal.first, discordant), config.ratio, config.h)

    def _discordant_test(self) -> SequentialTest | None:
        if self._advantage is None:
            return None
        rate = self._advantage.rate
        return SequentialTest(rate, self.config.ratio * rate, self.config.error)

    def _decide(self, counts: PairedCounts) -> None:
        result = "null" if self._test is None else self._test.add(counts.first, counts.second)
        if result is not None:
            self.verdict = "model" if result == "alternative" else "demand"


def _lower(hits: int, events: int) -> float:
    """The observed rate less one standard error, so that a reference that is high by chance causes no false alarm."""
    rate = (hits + 0.5) / (events + 1)
    return max(rate - math.sqrt(rate * (1 - rate) / events), rate / 2)


@dataclass(frozen=True)
class Detection:
    variant: Variant
    detector: Literal["adwin", "cusum"]
    direction: Literal["up", "down"]


class OutcomeMonitor:
    """A scorer's own detectors, for its dashboards. They take one outcome at a time; every variant has its own.

    A user's outcome counts once per `pause_ms` of event time.
    """

    def __init__(self, config: QualityConfig, detectors: bool = True) -> None:
        self._config, self._use_adwin = config, detectors
        self._bucket = -1
        self._seen: set[tuple[bytes, Variant]] = set()
        self._cusum: dict[Variant, BernoulliCusum] = {}
        self._normal: dict[Variant, tuple[int, int]] = {}
        self._adwin: dict[Variant, Adwin] = {}

    def update(self, user: bytes, time_ms: int, variant: Variant, hit: bool) -> list[Detection]:
        bucket = time_ms // self._config.pause_ms
        if bucket > self._bucket:
            self._bucket = bucket
            self._seen.clear()
        if bucket < self._bucket or (user, variant) in self._seen:
            return []
        self._seen.add((user, variant))
        found: list[Detection] = []
        if self._use_adwin:
            adwin = self._adwin.get(variant)
            if adwin is None:
                adwin = self._adwin[variant] = Adwin()
            direction = adwin.update(float(hit))
            if direction is not None:
                found.append(Detection(variant, "adwin", direction))
        cusum = self._cusum.get(variant)
        if cusum is None:
            hits, events = self._normal.get(variant, (0, 0))
            hits, events = hits + hit, events + 1
            self._normal[variant] = hits, events
            if events >= self._config.reference_events and hits:
                self._cusum[variant] = BernoulliCusum(_lower(hits, events), self._config.ratio, self._config.h)
        else:
            was = cusum.alarm
            if cusum.update(hit) and not was:
                found.append(Detection(variant, "cusum", "down"))
        return found

    def promoted(self) -> None:
        """Another model answers now: forget what was normal for the one before."""
        self._cusum.clear()
        self._normal.clear()
        for adwin in self._adwin.values():
            adwin.reset()

    @property
    def cusum_ratios(self) -> Mapping[Variant, float]:
        return {variant: cusum.ratio for variant, cusum in self._cusum.items()}

    @property
    def adwin_events(self) -> Mapping[Variant, int]:
        return {variant: adwin.events for variant, adwin in self._adwin.items()}
