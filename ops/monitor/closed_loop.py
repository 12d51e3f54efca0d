"""The closed loop of the trainer: it takes in the windows of the workers, and makes decisions.

It merges the windows, judges feed, drift and quality, exports the results to the trainer's metrics, and lets the
decision loop decide. Its state follows from the records of `monitor-windows` and the reports of the trainer, so reading
the topic from its beginning restores it after a restart; only `decisions.state` must be saved.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

import msgspec

from ops.labels import Check, Trigger
from ops.metrics import TrainerMetrics
from ops.monitor.data_quality import DataQuality, DataQualityConfig
from ops.monitor.decisions import Action, DecisionLoop
from ops.monitor.detectors import McNemarEvidence
from ops.monitor.drift_monitor import DriftConfig, DriftMonitor, export_metrics
from ops.monitor.evidence import CanaryEvidence, LiveEvidence, against_popularity
from ops.monitor.loop_state import LoopConfig, LoopState, Move, Step
from ops.monitor.probation import RollBack
from ops.monitor.quality import QualityConfig, QualityMonitor
from ops.monitor.windows import MergedWindow, OtherWindowLength, WindowConfig, WindowMerge, WindowRecord

__all__ = ["ClosedLoop", "ClosedLoopConfig"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClosedLoopConfig:
    windows: WindowConfig = field(default_factory=WindowConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    data_quality: DataQualityConfig = field(default_factory=DataQualityConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


class ClosedLoop:
    """One per trainer; not thread-safe. Decisions are made in event time.

    `clock` gives the time of gauges, and limits the wait for windows of slow workers.
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
        self.canary = CanaryEvidence()
        self._live = LiveEvidence()
        self.refused = 0  # records that cannot be read, or added to others
        self._other_lengths: set[int] = set()  # other window lengths that were logged already

    def add(self, value: bytes) -> None:
        """Take in a record of `monitor-windows`. A record that cannot be read, or that is about windows of another
        length, is only counted."""
        try:
            self.merge.add(WindowRecord.decode(value))
        except msgspec.DecodeError as error:
            self.refused += 1
            self._metrics.monitor_records_refused["unreadable"].inc()
            log.warning("a record of the monitor's windows cannot be read: %s", error)
        except OtherWindowLength as error:
            self.refused += 1
            self._metrics.monitor_records_refused["window_length"].inc()
            if error.length_ms not in self._other_lengths:
                self._other_lengths.add(error.length_ms)
                log.error("%s", error)

    @property
    def now_ms(self) -> int:
        """The newest event time of any worker; before the first one, the time of the clock."""
        return self.merge.newest_ms or int(self._clock() * 1000)

    def restore(self, values: Iterable[bytes]) -> None:
        """Take in the records that were written before this process began, without acting on them again."""
        decisions = self.decisions
        self.decisions = DecisionLoop(self.config.loop, LoopState.decode(decisions.state.encode()))
        promoted_ms = decisions.state.promoted_ms
        for value in values:
            self.add(value)
            for window in self.merge.close():
                if promoted_ms and window.start_ms + self.config.windows.window_ms > promoted_ms:
                    self.drift.promoted()
                    promoted_ms = 0
                self._judge(window, restoring=True)
        decisions.faults.failed_checks = self.decisions.faults.failed_checks
        self.decisions = decisions

    def turn(self, new_events: int) -> list[Action]:
        """Judge the windows that can be closed, then decide. `new_events`: number since the last round's snapshot."""
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

    def _judge(self, window: MergedWindow, restoring: bool = False) -> RollBack | None:
        failed = self.data_quality.update(window)
        for evaluation in self.drift.update(window, clean=not failed):
            if restoring:  # it was counted and logged when it happened
                evaluation = replace(evaluation, entered=None)
            export_metrics(evaluation, self._metrics, self._clock)
            if evaluation.entered is not None:
                log.info(
                    "%s against %s: %s (%d events)",
                    evaluation.signal,
                    evaluation.reference,
                    evaluation.entered,
                    evaluation.n,
                )
        self.decisions.window(self.drift.states(), failed)
        _export_faults(self.decisions.faults.failed_checks, self._metrics)
        live = self.decisions.state.live
        self.canary.add(window)
        self._live.add(window, live)
        return self.decisions.quality(self.quality.add(against_popularity(window, live)))

    def _judge_live(self) -> RollBack | None:
        figures = self._live.figures(self.merge.open(), self.decisions.state.live)
        evidence = McNemarEvidence(self.config.quality.rollback_alpha)
        evidence.add(figures.against_previous.second, figures.against_previous.first)
        return self.decisions.probation.judge(
            self.now_ms,
            evidence_ratio=evidence.ratio,
            nonfinite=figures.nonfinite,
            coverage=figures.coverage,
            latency_alarm_since_ms=figures.burning_since_ms,
        )

    # -- what the trainer reports --------------------------------------------------------------------------------------

    def intend(self, step: Step, version: str, trigger: Trigger = "schedule") -> Move:
        """Note a step that the trainer is about to make, with the figures of this moment that are needed afterwards."""
        coverage = self._live.figures(self.merge.open(), self.decisions.state.live).coverage or 0.0
        self.decisions.state.moving = move = Move(step, version, self.now_ms, trigger, coverage)
        return move

    def moved(self, move: Move) -> None:
        """The step was made."""
        probation = self.decisions.probation
        if move.step == "promote":
            probation.promoted(move.version, move.at_ms, move.trigger, move.coverage)
            self.drift.promoted()
        elif move.step == "roll_back":
            probation.rolled_back(move.at_ms)
        self.decisions.state.moving = None
        self.canary.follow(move.version if move.step == "begin_canary" else "")
        if move.step in ("promote", "roll_back"):
            self._follow_live()

    def moved_by_hand(self, live: str, previous: str, rolled_back: bool) -> None:
        """These models are in service, and it was not the trainer that moved them."""
        if rolled_back:
            self.decisions.probation.rolled_back(self.now_ms, by_hand=True)
        else:
            self.decisions.probation.adopt(live, previous)
        self._follow_live()

    def round_ended(self, took_seconds: float) -> None:
        self.decisions.round_ended(self.now_ms, int(took_seconds * 1000))

    def _follow_live(self) -> None:
        self.quality.reset()
        self._live.reset()


def _export_faults(faults: Mapping[Check, str], metrics: TrainerMetrics) -> None:
    for check in get_args(Check):
        metrics.data_quality_state[check].set(check in faults)
    for name, why in faults.items():
        log.warning("the feed fails %s: %s", name, why)
