"""The second stage of ranking: the model's reranker orders candidates of several sources.

The sources are the best items of the model, the user's own items, the items in demand now, and the items that often
follow those of the user. The first stage ranks the whole catalogue by what was learnt in training rounds. The counts
are as fresh as the last event, so the second stage knows of changes since the model was fitted, also of items that no
model knows.

Legend: B users, M candidates, C columns (items of the counts).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from model.items import ItemIndex
from model.recommend import Recommender
from model.rerank.candidates import CandidateConfig
from model.rerank.counts import StreamCounts
from model.rerank.reranker import Reranker
from model.rerank.slates import ModelLists, Slates, make_slates
from stream.scorer.event_counts import EventCounts
from stream.scorer.listable import Listed
from stream.scorer.requests import Request
from stream.wire.catalogue import Catalogue
from stream.wire.meaning import EventKinds

__all__ = ["SecondStage", "SecondStageConfig"]


@dataclass(frozen=True)
class SecondStageConfig:
    examples_per_second: float = 2.0
    """Most lists per second whose candidates are kept until their user's next event, for the reranker to learn from; 0
    for none."""
    candidates: CandidateConfig = field(default_factory=CandidateConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.examples_per_second < 1e6:
            raise ValueError(f"examples_per_second must be from 0 to a million, got {self.examples_per_second}")


class _Columns(NamedTuple):
    """The columns of a model's items in the counts, and of the counts' items in the model."""

    items: ItemIndex
    to_counts: np.ndarray  # int64 [I]
    to_model: np.ndarray  # int64 [C at least], -1 for items that the model does not know


class SecondStage:
    """Single-threaded, like the counts."""

    def __init__(
        self,
        config: SecondStageConfig,
        kinds: EventKinds,
        catalogue: Catalogue,
        counts: StreamCounts | None = None,
    ) -> None:
        self.config, self._catalogue = config, catalogue
        self.events = EventCounts(kinds, counts)
        self._columns: dict[int, _Columns] = {}  # by id of a model's catalogue

    def follow(self, models: Iterable[Recommender | None]) -> list[str]:
        """These models answer from now on: the items that they know get columns. Returns the items that had none."""
        counts, before = self.events.counts, len(self.events)
        for model in models:
            if model is not None:
                counts.known(model.items.ids)
        return counts.ids[before:]

    def slates(
        self, model: Recommender | None, requests: Sequence[Request], listed: Listed | None, now_ms: np.ndarray
    ) -> Slates:
        """The candidates of users at `now_ms` int64 [B] of event time; `listed` is what the model lists for them, None
        without a model."""
        events = self.events
        asked = events.asked(requests, now_ms, self._catalogue.hidden_from)
        if model is None or listed is None:
            return make_slates(events.counts, asked, self.config.candidates)
        columns, best = self._between(model.items), listed.ranked.columns[:, : self.config.candidates.model]
        best = np.where(best >= 0, columns.to_counts[best], -1)

        def terms(wanted: np.ndarray) -> np.ndarray:
            to_model = self._between(model.items).to_model
            return listed.terms(np.where(wanted >= 0, to_model[wanted], -1))

        return make_slates(events.counts, asked, self.config.candidates, ModelLists(best, terms))

    def best(
        self, reranker: Reranker, slates: Slates, count: int, now_ms: int
    ) -> tuple[list[list[str]], list[list[float]]]:
        """(Items, scores) of each user's list of at most `count` items that may be listed at `now_ms` of the clock."""
        forbidden = None
        if self._catalogue.restricts:
            forbidden = ~self._catalogue.allowed(self.events, now_ms)
        columns, scores = slates.best(reranker, count, forbidden)
        ids = self.events.ids
        lengths = (columns >= 0).sum(1).tolist()
        rows = zip(columns.tolist(), lengths, strict=True)
        return (
            [[ids[column] for column in row[:length]] for row, length in rows],
            [row[:length] for row, length in zip(scores.tolist(), lengths, strict=True)],
        )

    def _between(self, index: ItemIndex) -> _Columns:
        found = self._columns.get(id(index))
        if found is None or found.items is not index:
            to_counts = self.events.counts.known(index.ids)
            found = _Columns(index, to_counts, np.empty(0, dtype=np.int64))
            if len(self._columns) >= 4:  # live, previous and a canary
                self._columns.clear()
        if len(found.to_model) < len(self.events):
            to_model = np.full(max(len(self.events), 2 * len(found.to_model)), -1, dtype=np.int64)
            to_model[found.to_counts] = np.arange(len(index))
            found = found._replace(to_model=to_model)
        self._columns[id(index)] = found
        return found
