"""The exam of a round: candidate, live model and popularity answer the same questions about the same users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model.batch import Histories
from model.errors import NonFiniteScores
from model.evaluate import ndcg, paired_bootstrap, ranks_hit, recall
from model.items import ItemIndex
from model.popularity import DecayedPopularity
from model.ranker import Ranked
from model.recommend import Recommender
from state.history import History
from stream.trainer.gate import Evidence
from stream.trainer.holdout import Question
from stream.wire.meaning import ALL_ALIKE, EventKinds
from stream.wire.packing import pack_decoded

__all__ = ["CUTOFF", "Exam", "pack"]

CUTOFF = 20


def pack(items: ItemIndex, histories: Sequence[History], kinds: EventKinds = ALL_ALIKE) -> Histories:
    """The input of a model for these histories, at the time of their newest interaction."""
    newest_ms = max((history.newest_ms for history in histories), default=0)
    return pack_decoded(items, histories, kinds, newest_ms)[0]


class Exam:
    """All items are ranked, except those that may not be listed to the user. The figures are NDCG@20 and Recall@20.

    `items` is the candidate's catalogue. An item that the live model does not know is a miss of the live model.
    """

    def __init__(self, items: ItemIndex, questions: Sequence[Question], kinds: EventKinds = ALL_ALIKE) -> None:
        self._items, self._kinds = items, kinds
        self._known = [question.known for question in questions]
        self._now_ms = max((history.newest_ms for history in self._known), default=0)
        self._histories, self._hidden = pack_decoded(items, self._known, kinds, self._now_ms)
        self._wanted = Histories.pack(
            items, ((q.answer, (0,) * len(q.answer), (1.0,) * len(q.answer)) for q in questions)
        )
        self._counts = self._wanted.lengths

    def __len__(self) -> int:
        return len(self._known)

    def _figures(self, ranked: Ranked) -> tuple[np.ndarray, np.ndarray]:
        hits = ranks_hit(ranked, self._wanted)
        return ndcg(hits, self._counts, CUTOFF), recall(hits, self._counts, CUTOFF)

    def ndcg(self, recommender: Recommender) -> np.ndarray:
        """NDCG@20 [B] of a model that has the candidate's catalogue. Raises `NonFiniteScores`."""
        return self._figures(_whole(recommender.rank(self._histories, CUTOFF, self._hidden)))[0]

    def evidence(
        self,
        candidate: Recommender | None,
        live: Recommender | None,
        popularity: DecayedPopularity,
        rng: np.random.Generator,
    ) -> Evidence:
        """`candidate` is None when its parameters are not finite."""
        if not len(self):
            return Evidence(0, candidate is not None, 0.0, 0.0, 0.0, 0.0)
        popular = [
            float(figure.mean()) for figure in self._figures(popularity.rank(self._histories, CUTOFF, self._hidden))
        ]
        try:
            ranked = None if candidate is None else _whole(candidate.rank(self._histories, CUTOFF, self._hidden))
        except NonFiniteScores:
            ranked = None
        if ranked is None:
            return Evidence(len(self), False, 0.0, 0.0, popular[0], popular[1])
        own = self._figures(ranked)
        means = [float(figure.mean()) for figure in own]
        covered = _distinct(ranked.columns)
        evidence = Evidence(len(self), True, means[0], means[1], popular[0], popular[1], coverage=covered)
        return evidence if live is None else self._compared(evidence, own[0], live, rng)

    def _compared(
        self, evidence: Evidence, candidate: np.ndarray, live: Recommender, rng: np.random.Generator
    ) -> Evidence:
        try:
            histories, hidden = pack_decoded(live.items, self._known, self._kinds, self._now_ms)
            ranked = _whole(live.rank(histories, CUTOFF, hidden))
        except NonFiniteScores:
            return evidence  # without figures of the live model: a model that cannot score may always be replaced
        # From columns of the live catalogue to the candidate's; -1 stays -1.
        columns = np.append(self._items.columns(live.items.ids), -1)[ranked.columns]
        own = self._figures(Ranked(columns, ranked.scores))
        interval = paired_bootstrap(candidate, own[0], rng)
        return replace(
            evidence,
            live_ndcg=float(own[0].mean()),
            live_recall=float(own[1].mean()),
            lower=interval.low,
            live_coverage=_distinct(columns),
        )


def _whole(ranked: Ranked) -> Ranked:
    """Lists of `CUTOFF` places: those of a smaller catalogue are padded with -1, for no item."""
    missing = CUTOFF - ranked.columns.shape[1]
    if missing <= 0:
        return ranked
    return Ranked(
        np.pad(ranked.columns, ((0, 0), (0, missing)), constant_values=-1),
        np.pad(ranked.scores, ((0, 0), (0, missing)), constant_values=-np.inf),
    )


def _distinct(columns: np.ndarray) -> int:
    return len(np.unique(columns[columns >= 0]))
