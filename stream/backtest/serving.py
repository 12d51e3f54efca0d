"""The scorer's part of the system: lists by its list maker, and what it would report of them to the closed loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ops.monitor.windows import WindowConfig, WindowRecord
from stream.backtest.arms import CUTOFF, Service, place_of
from stream.backtest.timeline import Batch
from stream.backtest.windows import WorkerSignals
from stream.scorer.config import ListConfig
from stream.scorer.list_maker import ListMaker
from stream.scorer.models import Models
from stream.scorer.requests import Request
from stream.wire.catalogue import Catalogue

__all__ = ["Serving"]

_SHADOW_SHARE = 0.25  # of the questions while a model is on probation: the previous model answers them too


class Serving:
    """Answers questions with the models in service, and counts what it needs for that."""

    def __init__(
        self, service: Service, lists: ListConfig, windows: WindowConfig, models: Models, clock: Callable[[], float]
    ) -> None:
        self._service, self._signals = service, WorkerSignals(windows)
        metrics, tally, signals = self._signals.scorer_metrics, self._signals.tally, self._signals.lists
        self._maker = ListMaker(lists, service.popularity, Catalogue(), metrics, tally, signals, clock)
        self.follow(models)

    def follow(self, models: Models) -> None:
        """These models answer from now on."""
        self.models = models
        self._signals.follow(models)

    def ranks(self, batch: Batch, on_probation: bool) -> np.ndarray:
        """int64 [Q] from the lists that the scorer would have made just before these events."""
        questions, models = batch.questions, self.models
        requests = [Request(0, question.event, question.user, question.history, "event") for question in questions]
        answers = self._maker.make(requests, models)[0]
        ranks, modelled = np.zeros(len(questions), dtype=np.int64), [False] * len(questions)
        for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            listed = [scored.item for scored in answer.items[:CUTOFF]]
            ranks[row] = place_of(question.item, listed)
            modelled[row] = answer.model is models.live and models.live is not None
            self._signals.lists.published(question.user, question.time_ms, answer.variant, listed, answer.model)
        popular = np.array([self._service.popularity_rank(question) for question in questions], dtype=np.int64)
        previous = self._previous_ranks(batch) if on_probation else [None] * len(questions)
        self._signals.answered(questions, ranks, popular, previous, modelled)
        return ranks

    def _previous_ranks(self, batch: Batch) -> list[int | None]:
        asked: list[int | None] = [None] * len(batch.questions)
        if self.models.previous is None:
            return asked
        rng = np.random.default_rng(batch.first)  # the same questions however often a backtest is taken up again
        rows = np.flatnonzero(rng.random(len(batch.questions)) < _SHADOW_SHARE).tolist()
        if rows:
            found = self._service.recommender_ranks(self.models.previous, [batch.questions[row] for row in rows])
            for row, rank in zip(rows, found.tolist(), strict=True):
                asked[row] = rank
        return asked

    def learn(self, batch: Batch) -> None:
        """Count the events of a batch towards drift detection."""
        self._signals.learn(batch, self.models)

    def note_met(self, batch: Batch) -> None:
        """Remember the items of a batch that was counted before the backtest was taken up again."""
        self._signals.note_met(batch)

    def take(self) -> list[WindowRecord]:
        """The records that workers would write to `monitor-windows` now."""
        return self._signals.take()
