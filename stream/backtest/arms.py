"""The arms, which a backtest compares on the same events. An arm answers the questions of a batch, then learns its
events.

An arm answers with its state before the batch, and with each user's history before the event. An arm with models
answers with the popularity list, as the service does, until it has a model, and for users whose items are all unknown
to its model.

Legend: Q questions of a batch, B users, I items.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from model.batch import Histories
from model.items import ItemIndex
from model.ranker import Ranker
from model.recommend import Recommender
from model.study.fresh_popularity import HALF_LIVES_DAYS, DecayingCounts
from state.codec import Columns
from state.popularity import Popularity
from stream.backtest.event_log import EventLog
from stream.backtest.timeline import Batch, HistoryTimeline, Question
from stream.wire.hidden import hidden_items
from stream.wire.meaning import EventKinds
from stream.wire.packing import pack

__all__ = ["CUTOFF", "Arm", "FreshPopularity", "RefittedArm", "Service", "pack_all"]

CUTOFF = 20

_USERS_PER_BLOCK = 5_000


class Arm(Protocol):
    """One way to answer questions."""

    @property
    def train_seconds(self) -> float:
        """Seconds spent on fitting since the backtest began."""
        ...

    def ranks(self, batch: Batch) -> np.ndarray:
        """int64 [Q]: the place of each question's item in the arm's list, from 1; 0 when it is not listed."""
        ...

    def learn(self, batch: Batch) -> None:
        """Learn the events of a batch whose questions were answered."""
        ...

    def round_held(self, timeline: HistoryTimeline) -> None:
        """Called after a round of the system: arms that are fitted in the same rhythm are fitted now."""
        ...


class Service:
    """What the arms share: the meaning of events, and the popularity list that answers where no model can."""

    def __init__(self, log: EventLog, kinds: EventKinds, half_life_ms: int) -> None:
        self.log, self.kinds = log, kinds
        self.popularity = Popularity(half_life_ms)

    def learn(self, batch: Batch) -> None:
        for question in batch.questions:
            kind = self.log.kind_names[self.log.kinds[question.event]]
            self.popularity.add(question.item, question.time_ms, self.kinds[kind].strength)
        self.popularity.refresh()

    def popularity_rank(self, question: Question) -> int:
        hidden = hidden_items(question.history, self.kinds, question.time_ms)
        return place_of(question.item, [item for item, _ in self.popularity.top(hidden, CUTOFF)])

    def recommender_ranks(self, model: Recommender, questions: Sequence[Question]) -> np.ndarray:
        """int64 [Q]: the ranks of a served model."""
        now_ms = max((question.time_ms for question in questions), default=0)
        histories, hidden = pack(model.items, [question.history for question in questions], self.kinds, now_ms)
        return self._places(questions, histories, model.items, model.rank(histories, CUTOFF, hidden).columns)

    def ranker_ranks(self, ranker: Ranker, items: ItemIndex, questions: Sequence[Question]) -> np.ndarray:
        """int64 [Q]: the ranks of a baseline, which never lists items that the user has met."""
        now_ms = max((question.time_ms for question in questions), default=0)
        histories = pack(items, [question.history for question in questions], self.kinds, now_ms)[0]
        return self._places(questions, histories, items, ranker.rank(histories, CUTOFF).columns)

    def _places(
        self, questions: Sequence[Question], histories: Histories, items: ItemIndex, listed: np.ndarray
    ) -> np.ndarray:
        wanted = items.columns([question.item for question in questions])
        hit = (listed == wanted[:, None]) & (wanted >= 0)[:, None]
        places = np.where(hit.any(1), hit.argmax(1) + 1, 0)
        for cold in np.flatnonzero(histories.lengths == 0).tolist():
            places[cold] = self.popularity_rank(questions[cold])
        return places


def place_of(item: str, listed: Sequence[str]) -> int:
    """The place of an item in a list, from 1; 0 when it is not listed."""
    return listed.index(item) + 1 if item in listed else 0


def pack_all(items: ItemIndex, histories: Iterable[Columns], kinds: EventKinds, now_ms: int) -> Histories:
    """All histories as one batch for fitting, without a Python object for each of their interactions."""
    parts: list[Histories] = []
    block: list[Columns] = []
    for history in histories:
        block.append(history)
        if len(block) == _USERS_PER_BLOCK:
            parts.append(pack(items, block, kinds, now_ms)[0])
            block.clear()
    parts.append(pack(items, block, kinds, now_ms)[0])
    lengths = np.concatenate([part.lengths for part in parts])
    return Histories(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([part.columns for part in parts]),
        np.concatenate([part.times_ms for part in parts]),
        np.concatenate([part.strengths for part in parts]),
    )


class FreshPopularity:
    """Popularity by all events so far, with the half-life that has the best NDCG so far: the choice uses no later
    events."""

    train_seconds = 0.0

    def __init__(self, service: Service) -> None:
        self._service, log = service, service.log
        self._columns = {item: column for column, item in enumerate(log.item_ids)}
        self._counts = [DecayingCounts(len(log.item_ids), days) for days in HALF_LIVES_DAYS]
        self.gains: np.ndarray = np.zeros(len(HALF_LIVES_DAYS))  # NDCG so far of every half-life

    def ranks(self, batch: Batch) -> np.ndarray:
        """Each question is answered with all events before its moment: this arm is fresher than the service itself."""
        log, kinds, best = self._service.log, self._service.kinds, int(self.gains.argmax())
        ranks = np.zeros((len(batch.questions), len(self._counts)), dtype=np.int64)
        moment: list[int] = []  # events of the current user and time, not counted yet
        for row, question in enumerate(batch.questions):
            event = question.event
            if moment and (log.users[moment[0]], log.times_ms[moment[0]]) != (log.users[event], log.times_ms[event]):
                self._count(moment)
                moment = []
            moment.append(event)
            hidden = hidden_items(question.history, kinds, question.time_ms)
            if question.item in hidden:
                continue
            columns = [self._columns[item] for item in question.history.items if item in hidden]
            seen, column = np.array(columns, dtype=np.int64), self._columns[question.item]
            for place, counts in enumerate(self._counts):
                rank = counts.rank_of(column, seen)
                ranks[row, place] = rank if rank <= CUTOFF else 0
        self._count(moment)
        self.gains += np.where(ranks > 0, 1 / np.log2(np.maximum(ranks, 1) + 1), 0.0).sum(0)
        return ranks[:, best]

    def _count(self, moment: list[int]) -> None:
        log = self._service.log
        events = np.array(moment, dtype=np.int64)
        strengths = np.array([self._service.kinds[log.kind_names[kind]].strength for kind in log.kinds[events]])
        for counts in self._counts:
            counts.add(log.items[events], log.times_ms[events], strengths * log.weights[events])

    def learn(self, batch: Batch) -> None:
        """The events were counted one moment after another in `ranks`."""

    def round_held(self, timeline: HistoryTimeline) -> None:
        """Nothing to fit."""


class RefittedArm:
    """A baseline in closed form that is fitted again on everything whenever the system holds a round."""

    def __init__(self, name: str, service: Service, fit: Callable[[ItemIndex, Histories], Ranker]) -> None:
        self.name, self.train_seconds = name, 0.0
        self._service, self._fit = service, fit
        self._fitted: tuple[Ranker, ItemIndex] | None = None
        self._met: dict[str, None] = {}
        self._newest_ms = 0

    def ranks(self, batch: Batch) -> np.ndarray:
        if self._fitted is None:
            return np.array([self._service.popularity_rank(question) for question in batch.questions], dtype=np.int64)
        return self._service.ranker_ranks(*self._fitted, batch.questions)

    def learn(self, batch: Batch) -> None:
        self._met.update(dict.fromkeys(question.item for question in batch.questions))
        self._newest_ms = batch.newest_ms

    def round_held(self, timeline: HistoryTimeline) -> None:
        start = time.perf_counter()
        index = ItemIndex(tuple(self._met))
        histories = pack_all(index, timeline.everybody(), self._service.kinds, self._newest_ms)
        self._fitted = self._fit(index, histories), index
        self.train_seconds += time.perf_counter() - start
