"""Lists as they would be served over time: a frozen first stage, and the second stage with the counts at each time.

The reranker learns from questions before the reported part, answered by a first stage that had not seen them, and is
then frozen as well. Whether it is used is decided as in the trainer, by paired comparison.

Legend: Q questions, n events of the log, M candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from model.batch import Histories
from model.ranker import Hidden, Ranked
from model.rerank.asked import Asked
from model.rerank.candidates import CandidateConfig
from model.rerank.choice import ChoiceConfig, RerankerChoice, choose_reranker, untrained_reranker
from model.rerank.counts import CountsConfig, StreamCounts
from model.rerank.pairs import counted_events
from model.rerank.reranker import Examples, Reranker
from model.rerank.slates import ModelLists, Slates, make_slates
from model.study.figures import CUTOFF
from model.study.interactions import Interactions, Timeline

__all__ = ["FirstStage", "SecondStage"]

_COUNTED_TOGETHER = 2_000  # events at most; this bounds memory and does not change the counts
_ASKED_TOGETHER = 8  # questions that see the same counts: those before the first of them
_PLACES = 64  # newest items of a history that the second stage uses


class FirstStage(Protocol):
    """A ranker that can also score given items."""

    def rank(self, histories: Histories, k: int) -> Ranked:
        """The best unseen items."""

    def terms(self, histories: Histories, wanted: np.ndarray) -> np.ndarray:
        """float32 [B, M, 2]: z-scores of the network and of the item-item term, NaN where an item is -1."""


class SecondStage:
    """The second stage on a log, in time order. Columns of its counts are positions in `log.item_ids`."""

    def __init__(self, log: Interactions, timeline: Timeline, candidates: CandidateConfig | None = None) -> None:
        self._log, self._timeline, self._candidates = log, timeline, candidates or CandidateConfig()

    def learn(
        self,
        first_stage: FirstStage,
        columns: np.ndarray,
        events: np.ndarray,
        seed: int,
        told: Callable[[float], None] = lambda done: None,
    ) -> RerankerChoice:
        """Learn a reranker from the questions `events`, ascending places int64 [Q] in the log, and decide on its use.

        `columns` int64 [items of the log] are the first stage's, -1 for items that it does not know.
        """
        config, counts = ChoiceConfig(), CountsConfig()
        events = events[max(len(events) - config.most_examples, 0) :]
        parts: list[Examples] = []
        for block, slates in self._walk(first_stage, columns, events, told):
            parts.append(slates.answered(np.arange(len(block)), self._log.items[block]))

        def start(demand: int) -> Reranker:
            return untrained_reranker(counts, demand, config.reranker.hidden)

        demand = range(len(counts.demand_days))
        return choose_reranker(Examples.joined(parts), None, start, demand, config, seed=seed)

    def ranks(
        self,
        first_stage: FirstStage,
        reranker: Reranker,
        columns: np.ndarray,
        events: np.ndarray,
        told: Callable[[float], None] = lambda done: None,
    ) -> np.ndarray:
        """int64 [Q]: the rank of each event's item in the list at that time, 0 beyond the cutoff."""
        ranks: list[np.ndarray] = []
        for block, slates in self._walk(first_stage, columns, events, told):
            hit = slates.best(reranker, CUTOFF)[0] == self._log.items[block][:, None]
            ranks.append(np.where(hit.any(1), hit.argmax(1) + 1, 0))
        return np.concatenate(ranks)

    def _walk(
        self, first_stage: FirstStage, columns: np.ndarray, events: np.ndarray, told: Callable[[float], None]
    ) -> Iterator[tuple[np.ndarray, Slates]]:
        """Blocks of `events` with their slates; the counts are those before the block's first moment."""
        log, timeline, moments = self._log, self._timeline, self._log.moments
        everything, counted = np.arange(len(log.item_ids)), 0
        known = np.flatnonzero(columns >= 0)
        to_log = np.append(known[np.argsort(columns[known])], -1)  # by column of the first stage; the last for none
        counts = StreamCounts()
        counts.known(log.item_ids)
        for first in range(0, len(events), _ASKED_TOGETHER):
            block = events[first : first + _ASKED_TOGETHER]
            counted = self._count(counts, counted, int(moments[block[0]]))
            histories = timeline.histories(block, everything)
            asked = Asked.of(histories.newest(_PLACES), log.times_ms[block], Hidden.met(histories))
            theirs = timeline.histories(block, columns)
            best = to_log[first_stage.rank(theirs, self._candidates.model).columns]

            def terms(wanted: np.ndarray, theirs: Histories = theirs) -> np.ndarray:
                return first_stage.terms(theirs, np.where(wanted >= 0, columns[wanted], -1))

            yield block, make_slates(counts, asked, self._candidates, ModelLists(best, terms))
            told((first + len(block)) / len(events))

    def _count(self, counts: StreamCounts, first: int, until: int) -> int:
        """Count the events from place `first` to before `until`; returns `until`."""
        log, everything = self._log, np.arange(len(self._log.item_ids))
        for start in range(first, until, _COUNTED_TOGETHER):
            events = np.arange(start, min(start + _COUNTED_TOGETHER, until))
            histories = self._timeline.histories(events, everything).newest(_PLACES)
            before = Asked.of(histories, log.times_ms[events])
            counts.add(counted_events(before, log.users[events], log.items[events]))
        return until
