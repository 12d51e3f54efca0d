"""The drift monitor: it takes closed windows, and gives a state for each signal and reference. Time is event time.

There are two references. *training* describes the stream at the time when the live model was fitted: drift against it
means that the model is out of date. *baseline* is the same hour of the week, averaged over about four weeks: drift
against it means that the stream is unusual. The first is replaced at every promotion. The second is not, so it also
shows a slow drift that each new model follows.

A signal enters a state when two conditions hold in two consecutive windows: the effect is large enough to act on (PSI,
less its expectation without drift, reaches 0.1 or 0.25), and it is significant at these sample sizes. Windows are added
up until there are enough events.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from ops.labels import Reference
from ops.labels import Signal as SignalName
from ops.metrics import TrainerMetrics
from ops.monitor.drift import Comparison, compare, design_effect, events_needed, rate_z
from ops.monitor.windows import MergedWindow

__all__ = ["SIGNALS", "DriftConfig", "DriftMonitor", "Evaluation", "Hysteresis", "Signal"]

Vector = npt.NDArray[np.float64]

_HOUR_MS = 3_600_000
_WEEK_HOURS = 168


@dataclass(frozen=True)
class Signal:
    """`rate`: the second of two bins is the share that is watched. `ordered`: the bins have an order, so KS is valid.
    `named`: the bins are compared up to this index; another signal watches the rest (items that are unknown)."""

    name: SignalName
    kind: Literal["shares", "ordered", "rate"] = "shares"
    named: int | None = None
    ceiling: float = 1.0  # a rate above it is drift, whatever the reference is


SIGNALS: tuple[Signal, ...] = (
    Signal("item_popularity", named=-1),
    Signal("unknown_item_rate", "rate", ceiling=0.05),
    Signal("new_user_rate", "rate"),
    Signal("history_length"),
    Signal("inter_arrival"),
    Signal("event_type"),
    Signal("score_top1", "ordered"),
    Signal("score_margin"),
)


@dataclass(frozen=True)
class DriftConfig:
    warning: float = 0.10
    """Population stability index, beyond noise, that is a warning."""
    drift: float = 0.25
    """Population stability index, beyond noise, that is drift."""
    alpha: float = 0.003
    """Level of the test of one window; two windows in a row make a state."""
    rate_z: float = 4.4
    """Standard score from which on a rate has changed."""
    rate_change: float = 0.5
    """Relative change of a rate that is drift; half of it is a warning."""
    rate_events: int = 1000
    """Least events of a window for a rate."""
    ks: float = 0.1
    """Kolmogorov-Smirnov distance that is a warning; twice of it is drift."""
    linf: float = 0.01
    """Significant change of one bin that is a warning."""
    reference_windows: float = 8.0
    """Events of a training reference, in windows."""
    least_reference_parts: int = 4
    """Least parts of a training reference; their spread is the measure of noise."""
    longest_ms: int = 24 * _HOUR_MS
    """Time after which a window without enough events is judged as having too few."""
    kept_parts: int = 96
    """Parts remembered for the next training reference."""
    baseline_weeks: float = 4.0
    """Weeks over which the baseline of an hour of the week is averaged."""

    def __post_init__(self) -> None:
        if not 0 < self.warning < self.drift:
            raise ValueError(f"warning must lie between 0 and drift, got {self.warning} and {self.drift}")
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha must be in (0, 0.5), got {self.alpha}")
        if self.least_reference_parts < 2:
            raise ValueError(f"least_reference_parts must be at least 2, got {self.least_reference_parts}")


@dataclass
class Hysteresis:
    """Enters a state after two windows on or above its line, and leaves it after two windows below half of that line.

    >>> state = Hysteresis()
    >>> [state.update(level, level) for level in (2, 0, 2, 2, 1, 0, 0)]
    [0, 0, 0, 2, 2, 1, 0]
    """

    state: int = 0
    _reached: int = 0
    _held: int = 0

    def update(self, reached: int, held: int) -> int:
        """`reached`: the highest line this window is on or above; `held`: the highest whose half it is on or above."""
        entered = min(self._reached, reached)
        stays = max(self._held, held)
        self.state = max(entered, min(self.state, stays))
        self._reached, self._held = reached, held
        return self.state


@dataclass(frozen=True)
class Evaluation:
    """One window of one signal against one reference. `state` is -1 when there are too few events to judge."""

    signal: SignalName
    reference: Reference
    state: int
    n: int
    m: float
    comparison: Comparison | None
    until_ms: int
    entered: Literal["warning", "drift"] | None = None
    rate: float = math.nan  # of a rate signal, in the window
    reference_rate: float = math.nan


@dataclass(frozen=True)
class _Part:
    start_ms: int
    counts: Vector


@dataclass
class _Baseline:
    """Per hour of the week: exponentially averaged counts, and the squares that give the effective sample size."""

    counts: dict[int, Vector] = field(default_factory=dict)
    squares: dict[int, float] = field(default_factory=dict)

    def learn(self, part: _Part, keep: float) -> None:
        hour = _hour_of_week(part.start_ms)
        n = float(part.counts.sum())
        self.counts[hour] = keep * self.counts.get(hour, np.zeros_like(part.counts)) + part.counts
        self.squares[hour] = keep * keep * self.squares.get(hour, 0.0) + n

    def expected(self, parts: list[_Part]) -> Vector | None:
        """The baseline's counts for the hours of these parts, weighted by the events of each part, and scaled to the
        effective sample size. None when an hour has no baseline yet."""
        mixed, events, effective = np.zeros(0), 0.0, 0.0
        for part in parts:
            hour = _hour_of_week(part.start_ms)
            counts, n = self.counts.get(hour), float(part.counts.sum())
            if counts is None or counts.sum() <= 0:
                return None
            share = n * counts / counts.sum()
            mixed = share if mixed.size == 0 else mixed + share
            events += n
            effective += float(counts.sum()) ** 2 / self.squares[hour]
        return mixed / events * effective if events else None


def _hour_of_week(time_ms: int) -> int:
    return time_ms // _HOUR_MS % _WEEK_HOURS


@dataclass
class _Track:
    """All that is remembered of one signal in one epoch."""

    epoch: str = ""
    pending: list[_Part] = field(default_factory=list)
    clean: list[_Part] = field(default_factory=list)  # those of `pending` that may become a reference
    kept: deque[_Part] = field(default_factory=deque)
    off: list[_Part] = field(default_factory=list)  # the parts of the newest windows, as long as they reach a line
    training: list[_Part] = field(default_factory=list)
    collecting: bool = True  # the training reference is not complete yet
    given: Vector | None = None  # a training reference that came with the epoch
    deff: float = 1.0
    baseline: _Baseline = field(default_factory=_Baseline)
    states: dict[Reference, Hysteresis] = field(
        default_factory=lambda: {"training": Hysteresis(), "baseline": Hysteresis()}
    )


class DriftMonitor:
    """Takes every closed window, oldest first, and every promotion.

    A signal's epoch is the one with the most events in a window. With a new epoch the signal starts anew, with the
    reference that was given for the epoch, or with one that is collected from its first windows.
    """

    def __init__(self, config: DriftConfig, signals: tuple[Signal, ...] = SIGNALS) -> None:
        self.config, self.signals = config, signals
        self._tracks = {signal.name: _Track() for signal in signals}
        self._given: dict[tuple[str, str], Vector] = {}

    def give_reference(self, signal: str, epoch: str, counts: npt.ArrayLike) -> None:
        """Give the training reference of a future epoch, such as the deciles of the scores of a new model."""
        self._given[signal, epoch] = np.asarray(counts, dtype=np.float64)

    def promoted(self) -> None:
        """A new model is live: its reference is made of the newest windows, or of those since the stream changed."""
        for track in self._tracks.values():
            if track.collecting:
                continue
            newest = track.off or list(track.kept)
            track.training, track.collecting, track.given = list(newest), True, None
            track.pending, track.clean, track.off = [], [], []
            track.states["training"] = Hysteresis()
            self._complete(track)

    def update(self, window: MergedWindow, clean: bool = True) -> list[Evaluation]:
        """Add a closed window. Returns the evaluations of every signal that has enough events, one for each reference.

        A window that is not `clean` (the feed is broken) is judged but never becomes a reference.
        """
        evaluations: list[Evaluation] = []
        for signal in self.signals:
            epochs = window.epochs(signal.name)
            if not epochs:
                continue
            epoch = max(epochs, key=lambda name: (window.counts[signal.name, name].sum(), name))
            counts = window.counts[signal.name, epoch][: signal.named].astype(np.float64)
            track = self._tracks[signal.name]
            if epoch != track.epoch or (track.kept and len(track.kept[-1].counts) != len(counts)):
                track = self._tracks[signal.name] = _Track(epoch, given=self._given.pop((signal.name, epoch), None))
                track.collecting = track.given is None
            if counts.sum() > 0:
                evaluations += self._add(signal, track, _Part(window.start_ms, counts), clean)
        return evaluations

    def states(self, reference: Reference = "training") -> dict[str, int]:
        return {name: track.states[reference].state for name, track in self._tracks.items()}

    def _add(self, signal: Signal, track: _Track, part: _Part, clean: bool) -> list[Evaluation]:
        track.pending.append(part)
        if clean:
            track.clean.append(part)
        if track.collecting:
            track.training += track.clean
            self._complete(track)
            done = [self._too_few(signal, track, part)]
        elif sum(float(pending.counts.sum()) for pending in track.pending) >= self._needed(signal, track):
            done = self._evaluate(signal, track)
        elif part.start_ms - track.pending[0].start_ms >= self.config.longest_ms:
            done = [self._too_few(signal, track, part)]
        else:
            return []
        for learnt in track.clean:  # after the evaluation, so that a window is never compared with itself
            track.baseline.learn(learnt, self._keep(learnt, track))
            track.kept.append(learnt)
        while len(track.kept) > self.config.kept_parts:
            track.kept.popleft()
        track.pending, track.clean = [], []
        return done

    def _keep(self, part: _Part, track: _Track) -> float:
        """The factor by which an hour's baseline is kept: below 1 once a week, for the first part of the hour."""
        newest = track.kept[-1].start_ms if track.kept else None
        same = newest is not None and newest // _HOUR_MS == part.start_ms // _HOUR_MS
        return 1.0 if same else 1 - 1 / self.config.baseline_weeks

    def _needed(self, signal: Signal, track: _Track) -> int:
        if signal.kind == "rate":
            return math.ceil(self.config.rate_events * track.deff)
        return events_needed(len(track.pending[0].counts), track.deff, self.config.warning)

    def _complete(self, track: _Track) -> None:
        """Close the training reference once it has enough events and parts."""
        if not track.training:
            return
        track.deff = max(track.deff, 1.0) if track.given is not None else _spread(track.training)
        bins = len(track.training[0].counts)
        needed = self.config.reference_windows * events_needed(bins, track.deff, self.config.warning)
        total = sum(float(part.counts.sum()) for part in track.training)
        track.collecting = total < needed or len(track.training) < self.config.least_reference_parts

    def _evaluate(self, signal: Signal, track: _Track) -> list[Evaluation]:
        x = _total(track.pending)
        until_ms = track.pending[-1].start_ms
        training = track.given if track.given is not None else _total(track.training)
        references: dict[Reference, Vector | None] = {
            "training": training,
            "baseline": track.baseline.expected(track.pending),
        }
        done = []
        for name, y in references.items():
            if y is None or y.sum() < x.sum():
                done.append(Evaluation(signal.name, name, -1, int(x.sum()), 0.0, None, until_ms))
                continue
            comparison = compare(x, y, track.deff, track.deff, self.config.alpha)
            reached, held = _levels(signal, comparison, x, y, track.deff, self.config)
            hysteresis = track.states[name]
            before = hysteresis.state
            state = hysteresis.update(reached, held)
            entered: Literal["warning", "drift"] | None = None
            if state > before:
                entered = "drift" if state == 2 else "warning"
            rates = (float(x[1] / x.sum()), float(y[1] / y.sum())) if signal.kind == "rate" else (math.nan, math.nan)
            done.append(
                Evaluation(
                    signal.name, name, state, int(x.sum()), float(y.sum()), comparison, until_ms, entered, *rates
                )
            )
            if name == "training":
                track.off = track.off + track.pending if reached else []
        return done

    @staticmethod
    def _too_few(signal: Signal, track: _Track, part: _Part) -> Evaluation:
        n = sum(float(p.counts.sum()) for p in track.pending)
        m = sum(float(p.counts.sum()) for p in track.training)
        return Evaluation(signal.name, "training", -1, int(n), m, None, part.start_ms)


def _total(parts: list[_Part]) -> Vector:
    return np.sum([part.counts for part in parts], axis=0)


def _spread(parts: list[_Part]) -> float:
    """The design effect of these windows, without those that have few events."""
    sizes = [part.counts.sum() for part in parts]
    typical = float(np.median(sizes))
    table = np.array([part.counts for part, size in zip(parts, sizes, strict=True) if size >= typical / 4])
    return design_effect(table)


def _levels(
    signal: Signal, comparison: Comparison, x: Vector, y: Vector, deff: float, config: DriftConfig
) -> tuple[int, int]:
    """(The highest line that is reached, the highest line of which half is reached): 0 none, 1 warning, 2 drift."""
    if signal.kind == "rate":
        n, m = x.sum(), y.sum()
        z = rate_z(x[1], n, y[1], m, deff, deff)
        rate, reference = x[1] / n, y[1] / m
        change = abs(rate - reference) / max(reference, 1 / m)
        over = rate > signal.ceiling and (rate - signal.ceiling) / math.sqrt(deff * rate * (1 - rate) / n) > 2
        lines = [config.rate_change / 2, config.rate_change]
        reached = sum(change >= line for line in lines) if abs(z) > config.rate_z else 0
        held = sum(change >= line / 2 for line in lines) if abs(z) > config.rate_z / 2 else 0
        return (2, 2) if over else (reached, max(held, 2 * (rate > signal.ceiling / 2 and signal.ceiling < 1)))
    lines = [config.warning, config.drift]
    reached = sum(comparison.excess >= line for line in lines) if comparison.significant else 0
    held = sum(comparison.excess >= line / 2 for line in lines)
    if comparison.linf >= max(config.linf, comparison.linf_critical):
        reached = max(reached, 1)
    if signal.kind == "ordered" and comparison.ks >= comparison.ks_critical:
        reached = max(reached, sum(comparison.ks >= line for line in (config.ks, 2 * config.ks)))
    return reached, max(held, reached)


def export_metrics(evaluation: Evaluation, metrics: TrainerMetrics, clock: Callable[[], float]) -> None:
    """Put an evaluation on the trainer's gauges."""
    signal, reference = evaluation.signal, evaluation.reference
    metrics.drift_state[signal, reference].set(evaluation.state)
    metrics.drift_evaluated_timestamp[signal].set(clock())
    if reference == "training":
        metrics.drift_window_events[signal, "current"].set(evaluation.n)
        metrics.drift_window_events[signal, "reference"].set(evaluation.m)
    if evaluation.entered is not None:
        metrics.drift_detections[signal, evaluation.entered].inc()
    comparison = evaluation.comparison
    if comparison is None:
        return
    metrics.drift_statistic[signal, reference, "psi"].set(comparison.psi)
    metrics.drift_statistic[signal, reference, "jsd"].set(comparison.jsd)
    metrics.drift_statistic[signal, reference, "ks"].set(comparison.ks)
    metrics.drift_statistic[signal, reference, "linf"].set(comparison.linf)
    metrics.drift_excess_ratio[signal, reference].set(comparison.excess)
    metrics.drift_critical_value[signal, reference].set(comparison.critical)
