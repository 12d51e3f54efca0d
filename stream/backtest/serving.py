"""The scorer's part of the system: lists by its list maker, and the signals about them for the closed loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from model.rerank.reranker import Examples
from ops.monitor.windows import WindowConfig, WindowRecord
from state import codec
from stream.backtest.arms import CUTOFF, Service, place_of
from stream.backtest.timeline import Batch, Question
from stream.backtest.windows import WorkerSignals
from stream.scorer.config import ListConfig
from stream.scorer.list_maker import Answer, ListMaker
from stream.scorer.models import Models
from stream.scorer.pilot_lists import PilotLists
from stream.scorer.requests import Request
from stream.scorer.two_stages import TwoStages
from stream.wire.catalogue import Catalogue

__all__ = ["Serving"]

_Wave = dict[bytes, list[int]]

_EXAMPLES_PER_SECOND = 1e5
_SHADOW_SHARE = 0.25  # of the questions while a model is on probation: the previous model answers them too


class Serving:
    """Answers questions with the models in service, and counts events for them."""

    def __init__(
        self,
        service: Service,
        lists: ListConfig,
        windows: WindowConfig,
        models: Models,
        clock: Callable[[], float],
        most_examples: int,
    ) -> None:
        self._most_examples = most_examples
        self._answered: list[Examples] = []
        self._service, self._signals = service, WorkerSignals(windows)
        metrics, tally, signals = self._signals.scorer_metrics, self._signals.tally, self._signals.lists
        # Every list may become an example: the limit per second is so high that no backtest reaches it.
        lists = replace(lists, second_stage=replace(lists.second_stage, examples_per_second=_EXAMPLES_PER_SECOND))
        popularity, catalogue = service.popularity, Catalogue()
        self._stages = TwoStages(lists, popularity, catalogue, clock)
        self._maker = ListMaker(
            lists, popularity, catalogue, metrics, tally, signals, self._stages, PilotLists(""), clock
        )
        self.follow(models)

    def follow(self, models: Models) -> None:
        """Answer with these models from now on."""
        self.models = models
        self._signals.follow(models)

    def ranks(self, batch: Batch, on_probation: bool) -> np.ndarray:
        """int64 [Q]: the ranks in the lists that the scorer would have made just before these events."""
        questions, models = batch.questions, self.models
        ranks, modelled = np.zeros(len(questions), dtype=np.int64), [False] * len(questions)
        for wave in _waves(questions):
            for rows, answer in zip(wave.values(), self._answers(questions, wave), strict=True):
                listed = [scored.item for scored in answer.items[:CUTOFF]]
                for row in rows:
                    question = questions[row]
                    ranks[row] = place_of(question.item, listed)
                    modelled[row] = answer.model is models.live and models.live is not None
                    self._signals.lists.published(question.user, question.time_ms, answer.variant, listed, answer.model)
        popular = np.array([self._service.popularity_rank(question) for question in questions], dtype=np.int64)
        previous = self._previous_ranks(batch) if on_probation else [None] * len(questions)
        self._signals.answered(questions, ranks, popular, previous, modelled)
        return ranks

    def _answers(self, questions: Sequence[Question], wave: _Wave) -> list[Answer]:
        """One list for each user of a wave; the lists are kept as examples for the reranker."""
        requests = [_request(questions[rows[0]]) for rows in wave.values()]
        answers, live = self._maker.make(requests, self.models)[0], self.models.live
        if live is None or live.reranker is None:
            self._stages.keep_examples(live, [answer.request for answer in answers if answer.model is live])
        for user, rows in wave.items():
            met = [questions[row].item for row in rows if not (questions[row].repeat and self._service.kinds.plain)]
            self._stages.examples.answer(user, self._stages.second_stage.events.columns(met))
        return answers

    def _previous_ranks(self, batch: Batch) -> list[int | None]:
        asked: list[int | None] = [None] * len(batch.questions)
        if self.models.previous is None:
            return asked
        rng = np.random.default_rng(batch.first)  # the same questions, however often a backtest is continued
        rows = np.flatnonzero(rng.random(len(batch.questions)) < _SHADOW_SHARE).tolist()
        if rows:
            questions = [batch.questions[row] for row in rows]
            ranked = self._stages.rank(self.models.previous, [_request(question) for question in questions])
            for row, question, items in zip(rows, questions, ranked.items, strict=True):
                asked[row] = place_of(question.item, items) if items else self._service.popularity_rank(question)
        return asked

    def examples(self) -> Examples | None:
        """The newest lists with known outcome, in time order, from which the reranker learns."""
        self._answered += self._stages.examples.take()
        if not self._answered:
            return None
        joined = Examples.joined(self._answered)
        joined = joined.select(np.arange(max(len(joined) - self._most_examples, 0), len(joined)))
        self._answered = [joined]
        return joined

    def restore(self, examples: Examples | None) -> None:
        """Set the examples from before the backtest was interrupted."""
        self._answered = [] if examples is None else [examples]

    def learn(self, batch: Batch) -> None:
        """Count the events of a batch, for drift detection and for the second stage."""
        self._signals.learn(batch, self.models)
        self._count(batch)

    def note_met(self, batch: Batch) -> None:
        """Remember the items of a batch that was counted before the backtest was interrupted."""
        self._signals.note_met(batch)
        self._count(batch)

    def _count(self, batch: Batch) -> None:
        self._stages.second_stage.events.count(
            Request(0, batch.end, change.user, codec.read(change.value), "event", tuple(change.change.new))
            for change in batch.changes
        )

    def take(self) -> list[WindowRecord]:
        """The records that workers would write to `monitor-windows` now."""
        return self._signals.take()


def _request(question: Question) -> Request:
    return Request(0, question.event, question.user, question.history, "event", asked_ms=question.time_ms)


def _waves(questions: Sequence[Question]) -> list[_Wave]:
    """Rows of questions by user, so that no user has two moments in one wave."""
    waves: list[_Wave] = []
    moments: dict[bytes, list[int]] = defaultdict(list)  # by user: the times of the questions
    for row, question in enumerate(questions):
        times = moments[question.user]
        if question.time_ms not in times:
            times.append(question.time_ms)
        number = times.index(question.time_ms)
        if number == len(waves):
            waves.append({})
        waves[number].setdefault(question.user, []).append(row)
    return waves
