"""Makes a model's lists: the model's own order of the catalogue and, where it has a reranker, the second stage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from model.ranker import Ranked
from model.recommend import Recommender
from model.rerank.counts import StreamCounts
from model.rerank.reranker import Reranker
from model.rerank.slates import Slates
from state.popularity import Popularity
from stream.scorer.allowance import Allowance
from stream.scorer.config import ListConfig
from stream.scorer.examples import ExampleKeeper
from stream.scorer.list_variety import ListVariety
from stream.scorer.listable import Listed, rank_listable
from stream.scorer.requests import Request
from stream.scorer.second_stage import SecondStage
from stream.wire.catalogue import Catalogue

__all__ = ["RankedLists", "TwoStages"]

log = logging.getLogger(__name__)


class RankedLists(NamedTuple):
    """What a model lists for B users; empty lists for users of whose items it knows none."""

    items: list[list[str]]
    scores: list[list[float]]
    first_stage: Ranked


class TwoStages:
    """Single-threaded. Call `count` before `rank`, so that a list is made with the events that it answers."""

    def __init__(
        self,
        config: ListConfig,
        popularity: Popularity,
        catalogue: Catalogue,
        clock: Callable[[], float],
        saved_counts: StreamCounts | None = None,
    ) -> None:
        self._config, self._popularity, self._catalogue, self._clock = config, popularity, catalogue, clock
        self.second_stage = SecondStage(config.second_stage, config.events, catalogue, saved_counts)
        self.examples = ExampleKeeper(config.events)
        self._variety = ListVariety(config.variety, self.second_stage.events.counts, catalogue.records)
        self._allowance = Allowance(config.second_stage.examples_per_second)

    def count(self, requests: Sequence[Request]) -> None:
        """Take in new events of these users: they answer the users' last lists as examples, and count as demand."""
        self.examples.events(requests, self.second_stage.events.columns)
        self.second_stage.events.count(requests)

    def event_ms(self, requests: Iterable[Request]) -> int:
        """The present in event time, so that a replayed log hides items for as long as the original stream did."""
        return max(self._popularity.newest_ms, *(max(request.newest_ms, request.asked_ms) for request in requests))

    def rank(self, model: Recommender, requests: Sequence[Request], noted: int = 0) -> RankedLists:
        """The lists of a model. A reranker may learn from those of the first `noted` users."""
        config, reranker = self._config, model.reranker
        count = config.chosen_from
        listed = self._first_stage(model, requests, slates=reranker is not None)
        ids, ranked = model.items.ids, listed.ranked
        # A row ends in column -1 when fewer items are left.
        rows = zip(ranked.columns[:, :count].tolist(), listed.histories.lengths.tolist(), strict=True)
        items = [[ids[column] for column in row if column >= 0] if known else [] for row, known in rows]
        scores = [row[: len(names)] for row, names in zip(ranked.scores.tolist(), items, strict=True)]
        if reranker is not None:
            self._rerank(model, reranker, requests, listed, noted, items, scores)
        if config.variety.on:
            items, scores = self._variety.choose(model, items, scores, config.list_items)
        return RankedLists(items, scores, ranked)

    def _rerank(
        self,
        model: Recommender,
        reranker: Reranker,
        requests: Sequence[Request],
        listed: Listed,
        noted: int,
        items: list[list[str]],
        scores: list[list[float]],
    ) -> None:
        """Replace the lists of the first stage by those of the reranker."""
        slates = self._slates(model, requests, listed)
        taken = self._allowance.take(noted, self._clock())
        self.examples.listed([request.user for request in requests[:taken]], slates, range(taken))
        best = self.second_stage.best(reranker, slates, self._config.chosen_from, int(self._clock() * 1000))
        for row, (names, values) in enumerate(zip(*best, strict=True)):
            # A shorter list means that the items that may be listed lie beyond the candidates: keep the first stage's.
            if len(names) >= min(len(items[row]), self._config.list_items):
                items[row], scores[row] = names, values

    def keep_examples(self, model: Recommender | None, requests: Sequence[Request]) -> None:
        """Keep the candidates of some users, whose lists are delivered, so that a first reranker can learn. `model` is
        the live model, None before the first.

        As for shadows, nothing is kept until a full second's allowance can be taken at once.
        """
        wanted = min(len(requests), self._allowance.most)
        if not wanted or self._allowance.left(self._clock()) < wanted:
            return
        some = requests[: self._allowance.take(wanted, self._clock())]
        try:
            listed = None if model is None else self._first_stage(model, some, slates=True)
            slates = self._slates(model, some, listed)
        except Exception as error:  # no list depends on it  # noqa: BLE001
            log.warning("no examples are kept: %s", error)
            return
        self.examples.listed([request.user for request in some], slates, range(len(some)))

    def _first_stage(self, model: Recommender, requests: Sequence[Request], *, slates: bool) -> Listed:
        """The first stage's lists, as long as they are served or, with `slates`, long enough to choose from."""
        config, event_ms, now_ms = self._config, self.event_ms(requests), int(self._clock() * 1000)
        count = config.candidates if slates else config.chosen_from
        return rank_listable(
            model, requests, config.events, event_ms, self._catalogue, now_ms, count, with_terms=slates
        )

    def _slates(self, model: Recommender | None, requests: Sequence[Request], listed: Listed | None) -> Slates:
        newest_ms = self._popularity.newest_ms
        times_ms = [max(newest_ms, request.newest_ms, request.asked_ms) for request in requests]
        return self.second_stage.slates(model, requests, listed, np.array(times_ms, dtype=np.int64))
