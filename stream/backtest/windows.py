"""The records that workers would have written to `monitor-windows`, counted in this process for the closed loop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from prometheus_client import CollectorRegistry

from ops.metrics import ScorerMetrics, Tally, UpdaterMetrics
from ops.monitor.signals import UpdaterSignals
from ops.monitor.windows import WindowConfig, WindowCounter, WindowRecord
from stream.backtest.event_log import EventLog
from stream.backtest.timeline import Batch, Question
from stream.scorer.config import ListSignalsConfig
from stream.scorer.list_signals import ListSignals
from stream.scorer.models import Models
from stream.wire.windows_topic import worker_name

__all__ = ["WorkerSignals", "fitting_windows"]

_LENGTHS_MS = tuple(minutes * 60_000 for minutes in (15, 60, 6 * 60, 24 * 60, 7 * 24 * 60))
_EVENTS = 200  # that a window should hold
_MISS_RANK = 51


def fitting_windows(log: EventLog) -> WindowConfig:
    """Windows that hold enough events on average over a log; the default of a quarter of an hour suits busy streams."""
    span_ms = int(log.times_ms[-1] - log.times_ms[0]) + 1
    length_ms = next((ms for ms in _LENGTHS_MS if len(log) * ms / span_ms >= _EVENTS), _LENGTHS_MS[-1])
    return WindowConfig(length_ms, length_ms // 15)


class WorkerSignals:
    """An updater's and a scorer's signals of the same events."""

    def __init__(self, windows: WindowConfig) -> None:
        registry = CollectorRegistry()
        self.scorer_metrics, self.tally = ScorerMetrics(CollectorRegistry()), Tally()
        self._updater = UpdaterSignals(WindowCounter(worker_name("updater"), windows), UpdaterMetrics(registry))
        self.lists = ListSignals(ListSignalsConfig(windows=windows), self.scorer_metrics, self.tally)
        self._met: set[str] = set()

    def follow(self, models: Models) -> None:
        self.lists.follow(models)

    def answered(
        self,
        questions: Sequence[Question],
        ranks: np.ndarray,
        popularity_ranks: np.ndarray,
        previous_ranks: Sequence[int | None],
        by_model: Sequence[bool],
    ) -> None:
        """Count the ranks of the lists. Ranks are from 1, 0 for a miss; None where the previous model was not asked."""
        rows = zip(questions, ranks.tolist(), popularity_ranks.tolist(), previous_ranks, by_model, strict=True)
        for question, rank, popular, previous, modelled in rows:
            self.lists.window_signals.delivered(question.time_ms, 0.0)
            if modelled and not question.repeat:
                shadow = None if previous is None else previous or _MISS_RANK
                self.lists.control(question.user, question.time_ms, rank or _MISS_RANK, popular or _MISS_RANK, shadow)

    def learn(self, batch: Batch, models: Models) -> None:
        """Count the events of a batch."""
        for change in batch.changes:
            times_ms = [event.time_ms for event in change.change.new]
            length = len(change.change.history.items)
            self._updater.user(change.user, change.before_ms, times_ms, length, change.change.kinds)
            if models.live is None:
                continue
            for event in change.change.new:
                in_vocabulary = event.item in models.live.items
                self.lists.event(event.item, event.time_ms, in_vocabulary, event.item not in self._met)
        self.note_met(batch)

    def note_met(self, batch: Batch) -> None:
        """Remember the items of a batch without counting anything."""
        self._met.update(event.item for change in batch.changes for event in change.change.new)

    def take(self) -> list[WindowRecord]:
        """The records that workers would write now."""
        self._updater.flush()
        self.lists.window_signals.flush()
        self.tally.flush()
        counters = self._updater.windows, self.lists.window_signals.windows
        return [record for counter in counters for record in counter.take()]
