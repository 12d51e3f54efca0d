"""Evidence from windows about the models in service: the live model since its promotion, and the canary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np

from ops.monitor.beyond_accuracy import spread_of
from ops.monitor.detectors import McNemarEvidence
from ops.monitor.quality import PairedCounts
from ops.monitor.signals import SHOWN_BINS, paired_counts
from ops.monitor.windows import MergedWindow

__all__ = ["CanaryEvidence", "CanaryTest", "LiveEvidence", "LiveFigures", "against_popularity"]

_BURN = 0.144  # share of late lists that burns the budget of 1 % 14.4 times too fast
_LEAST_LISTS = 200
_LEAST_SHOWN = 2_000  # least number of recommended items for a meaningful spread


def _paired(window: MergedWindow, signal: str, version: str) -> PairedCounts:
    table = window.counts.get((signal, version))
    return PairedCounts() if table is None else paired_counts(table.tolist())


def against_popularity(window: MergedWindow, version: str) -> PairedCounts:
    """How the lists of a model (first) and popularity's (second) answered the same events."""
    return _paired(window, "against_popularity", version)


class LiveFigures(NamedTuple):
    against_previous: PairedCounts  # live first
    nonfinite: int  # users with NaN or infinite scores
    coverage: float | None  # over how many items lists are spread; None while there are few lists
    burning_since_ms: int | None  # start of the window since which too many lists are late; None if they are not


class LiveEvidence:
    """Evidence about the live model, from closed windows. `figures` adds the open windows, so as not to wait for their
    end."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Another model is live."""
        self._against_previous, self._nonfinite = PairedCounts(), 0
        self._burning_since_ms: int | None = None
        self._shown = np.zeros(SHOWN_BINS, dtype=np.int64)

    def add(self, window: MergedWindow, live: str) -> None:
        self._against_previous += _paired(window, "against_previous", live)
        self._nonfinite += window.totals.get(f"nonfinite {live}", 0)
        self._shown = self._shown + window.counts.get(("shown", live), 0)
        lists, late = window.totals.get("lists", 0), window.totals.get("late_lists", 0)
        if lists < _LEAST_LISTS or late <= _BURN * lists:
            self._burning_since_ms = None
        elif self._burning_since_ms is None:
            self._burning_since_ms = window.start_ms

    def figures(self, unclosed: Iterable[MergedWindow], live: str) -> LiveFigures:
        against, nonfinite, shown = self._against_previous, self._nonfinite, self._shown
        for window in unclosed:
            against += _paired(window, "against_previous", live)
            nonfinite += window.totals.get(f"nonfinite {live}", 0)
            shown = shown + window.counts.get(("shown", live), 0)
        coverage = spread_of(shown) if shown.sum() >= _LEAST_SHOWN else None
        return LiveFigures(against, nonfinite, coverage, self._burning_since_ms)


class CanaryEvidence:
    """How the canary and the live model answered the same events, which are those of the canary's users."""

    def __init__(self) -> None:
        self._version, self._closed = "", PairedCounts()

    def follow(self, version: str) -> None:
        """This model is the canary from now on; "": there is none any more."""
        self._version, self._closed = version, PairedCounts()

    def add(self, window: MergedWindow) -> None:
        self._closed += _paired(window, "against_live", self._version)

    def counts(self, unclosed: Iterable[MergedWindow]) -> PairedCounts:
        """The counts so far, with the canary as the first list."""
        counts = self._closed
        for window in unclosed:
            counts += _paired(window, "against_live", self._version)
        return counts


class CanaryTest:
    """Decides whether the canary goes live: it is refused on evidence against it, and promoted after enough events.

    >>> canary = CanaryTest()
    >>> canary.add(against=5, in_favour=9, events=1500), canary.add(against=3, in_favour=2, events=600)
    (None, 'promote')
    >>> CanaryTest().add(against=60, in_favour=20, events=800)
    'reject'
    """

    def __init__(self, events: int = 2_000, alpha: float = 0.05) -> None:
        self._needed, self._events = events, 0
        self.evidence = McNemarEvidence(alpha)

    def add(self, against: int, in_favour: int, events: int) -> Literal["promote", "reject"] | None:
        """Add events of the canary's users: `against` that only the live model's list hit, `in_favour` that only the
        canary's list hit, and the number of all `events`."""
        self._events += events
        if self.evidence.add(against, in_favour):
            return "reject"
        return "promote" if self._events >= self._needed else None
