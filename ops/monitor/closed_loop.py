"""The trainer's eye on the stream: workers' windows in, decisions out.

It merges the windows, judges feed, drift and quality, shows all of it on the trainer's metrics, and lets the closed
loop decide. It is a function of the records of `monitor-windows` and of what the trainer tells it, so reading the topic
from its beginning restores it after a restart; only `decisions.state` is worth keeping.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from ops.metrics import TrainerMetrics
from ops.monitor.beyond_accuracy import spread_of
from ops.monitor.data_quality import CHECKS, DataQuality, DataQualityConfig
from ops.monitor.decisions import DecisionLoop, LoopConfig, LoopState, RollBack, SkipRound, StartRound
from ops.monitor.detectors import McNemarEvidence
from ops.monitor.drift_monitor import DriftConfig, DriftMonitor, export_metrics
from ops.monitor.quality import PairedCounts, QualityConfig, QualityMonitor
from ops.monitor.signals import SHOWN_BINS, paired_counts
from ops.monitor.windows import MergedWindow, WindowConfig, WindowMerge, WindowRecord

__all__ = ["Action", "ClosedLoop", "ClosedLoopConfig"]

log = logging.getLogger(__name__)

Action = StartRound | SkipRound | RollBack

_BURN = 0.144  # share of late lists that burns the budget of 1 % 14.4 times too fast
_LEAST_LISTS = 200
_LEAST_SHOWN = 2_000  # recommendations in lists; below that their spread says little


@dataclass(frozen=True)
class ClosedLoopConfig:
    windows: WindowConfig = field(default_factory=WindowConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    data_quality: DataQualityConfig = field(default_factory=DataQualityConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


class ClosedLoop:
    """One per trainer; not thread-safe. Decisions are made in event time.

    `clock` dates gauges, and bounds the wait for windows of slow workers.
    """

    def __init__(
        self,
        config: ClosedLoopConfig,
        metrics: TrainerMetrics,
        clock: Callable[[], float],
        state: LoopState | None = None,
    ) -> None:
        self.config, self._metrics, self._clock = config, metrics, clock
        self.merge = WindowMerge(config.windows)
        self.data_quality = DataQuality(config.data_quality)
        self.drift = DriftMonitor(config.drift)
        self.quality = QualityMonitor(config.quality)
        self.decisions = DecisionLoop(config.loop, state)
        self.refused = 0  # records that nobody could read
        self._against_previous = PairedCounts()  # of closed windows, since the promotion
        self._canary = ""
        self._against_live = PairedCounts()  # of the canary, in closed windows
        self._nonfinite = 0
        self._burning_since_ms: int | None = None
        self._shown = np.zeros(SHOWN_BINS, dtype=np.int64)  # by live in closed windows, since the promotion

    def add(self, value: bytes) -> None:
        """A record of `monitor-windows`; one that is not ours is counted and left."""
        try:
            self.merge.add(WindowRecord.decode(value))
        except msgspec.DecodeError as error:
            self.refused += 1
            log.warning("a record of the monitor's windows cannot be read: %s", error)

    @property
    def now_ms(self) -> int:
        """Event time: the newest that any worker has met; before there is any, the clock's."""
        return self.merge.newest_ms or int(self._clock() * 1000)

    def restore(self, values: Iterable[bytes]) -> None:
        """Take in what was written before this process began: known from now on, but not acted upon again."""
        decided = self.decisions.state
        self.decisions.state = LoopState.decode(decided.encode())
        promoted_ms = decided.promoted_ms
        for value in values:
            self.add(value)
            for window in self.merge.close():
                if promoted_ms and window.start_ms + self.config.windows.window_ms > promoted_ms:
                    self.drift.promoted()
                    promoted_ms = 0
                self._judge(window, anew=False)
        self.decisions.state = decided

    def turn(self, new_events: int) -> list[Action]:
        """Judge what can be judged, then decide; `new_events` since the last round's snapshot."""
        actions: list[Action] = []
        for window in self.merge.close(int(self._clock() * 1000)):
            back = self._judge(window)
            if back is not None:
                actions.append(back)
        back = self._judge_live()
        if back is not None:
            actions.append(back)
        if actions:
            return actions[:1]
        decision = self.decisions.next_round(self.now_ms, new_events)
        return [decision] if decision is not None else []

    def _judge(self, window: MergedWindow, anew: bool = True) -> RollBack | None:
        metrics, end_ms = self._metrics, window.start_ms + self.config.windows.window_ms
        failed = self.data_quality.update(window)
        for evaluation in self.drift.update(window, clean=not failed):
            export_metrics(evaluation if anew else replace(evaluation, entered=None), metrics, self._clock)
            if anew and evaluation.entered is not None:
                log.info(
                    "%s against %s: %s (%d events)",
                    evaluation.signal,
                    evaluation.reference,
                    evaluation.entered,
                    evaluation.n,
                )
        self.decisions.window(end_ms, self.drift.states(), failed)
        faults = self.decisions.failed_checks
        for check in (*CHECKS, "signals"):
            metrics.data_quality_state[check].set(check in faults)
        for check, why in faults.items():
            log.warning("the feed fails %s: %s", check, why)
        self._note_latency(window)
        live = self.decisions.state.live
        self._against_live += _paired(window, "against_live", self._canary)
        self._nonfinite += window.totals.get(f"nonfinite {live}", 0)
        self._against_previous += _paired(window, "against_previous", live)
        self._shown = self._shown + window.counts.get(("shown", live), 0)
        verdict = self.quality.add(_paired(window, "against_popularity", live))
        return self.decisions.quality(verdict, end_ms) if verdict in ("demand", "model") else None

    def _note_latency(self, window: MergedWindow) -> None:
        lists, late = window.totals.get("lists", 0), window.totals.get("late_lists", 0)
        if lists < _LEAST_LISTS or late <= _BURN * lists:
            self._burning_since_ms = None
        elif self._burning_since_ms is None:
            self._burning_since_ms = window.start_ms

    def _judge_live(self) -> RollBack | None:
        live = self.decisions.state.live
        against, nonfinite = self._against_previous, self._nonfinite
        for window in self.merge.open():  # evidence need not wait for a window to close
            against += _paired(window, "against_previous", live)
            nonfinite += window.totals.get(f"nonfinite {live}", 0)
        evidence = McNemarEvidence(self.config.quality.rollback_alpha)
        evidence.add(against.second, against.first)
        return self.decisions.judge_live(
            self.now_ms,
            evidence_ratio=evidence.ratio,
            nonfinite=nonfinite,
            coverage=self._coverage(),
            latency_alarm_since_ms=self._burning_since_ms,
        )

    def _coverage(self) -> float | None:
        """How many items the lists of live are spread over; None while they are few."""
        shown = self._shown
        for window in self.merge.open():
            shown = shown + window.counts.get(("shown", self.decisions.state.live), 0)
        return spread_of(shown) if shown.sum() >= _LEAST_SHOWN else None

    def canary_counts(self) -> PairedCounts:
        """How the canary (first) and live (second) answered the events of the canary's users so far."""
        counts = self._against_live
        for window in self.merge.open():
            counts += _paired(window, "against_live", self._canary)
        return counts

    # -- what the trainer tells ----------------------------------------------------------------------------------------

    def canary(self, version: str) -> None:
        """This model is the canary from now on; "": there is none any more."""
        self._canary, self._against_live = version, PairedCounts()

    def adopt(self, live: str, previous: str) -> None:
        """These models are in service already."""
        self.decisions.adopt(live, previous)
        self._begin()

    def promoted(self, version: str, trigger: str) -> None:
        self.decisions.promoted(version, self.now_ms, trigger, self._coverage() or 0.0)
        self.drift.promoted()
        self._begin()

    def rolled_back(self, by_hand: bool = False) -> None:
        self.decisions.rolled_back(self.now_ms, by_hand)
        self._begin()

    def round_ended(self, took_seconds: float) -> None:
        self.decisions.round_ended(self.now_ms, int(took_seconds * 1000))

    def _begin(self) -> None:
        self.quality.reset()
        self._against_previous, self._nonfinite, self._burning_since_ms = PairedCounts(), 0, None
        self._shown = np.zeros(SHOWN_BINS, dtype=np.int64)


def _paired(window: MergedWindow, signal: str, version: str) -> PairedCounts:
    table = window.counts.get((signal, version))
    return PairedCounts() if table is None else paired_counts(table.tolist())
