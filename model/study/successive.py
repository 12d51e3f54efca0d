"""One time of split for all users: the protocol `global`, with successive questions.

Models are fitted on the events before one time and then frozen. Every later event is a question: its user's history
just before the event's moment, and the item of the event. The whole catalogue is ranked. Every question counts, also
for users without a history; an item that the model does not know is a miss. Settings are chosen in the same way inside
the training part, by NDCG@20.

The scheme is "global temporal split, successive" of Gusak et al. 2025 (arXiv 2507.16289).

Legend: Q questions, n events of the log, I items of the training part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from model.items import ItemIndex
from model.ranker import Ranker
from model.rerank.choice import RerankerChoice
from model.study.catalogue import Catalogue
from model.study.contenders import CONTENDERS, FRESH_POPULARITY, Contender, Settings
from model.study.figures import CUTOFF, Figures, next_figures
from model.study.fresh_popularity import HALF_LIVES_DAYS, fresh_popularity_ranks
from model.study.interactions import Interactions, Timeline
from model.study.progress import OnMeasured, Progress
from model.study.report import Row
from model.study.second_stage import SecondStage

__all__ = ["HISTORY_LENGTHS", "Successive", "slices_by_length"]

HISTORY_LENGTHS = {"0": (0, 0), "1": (1, 1), "2-5": (2, 5), "6-20": (6, 20), "21+": (21, None)}

_QUESTIONS_PER_BLOCK = 2_000
_CHOICE_QUESTIONS = 5_000  # the most questions by which settings are chosen
_PATIENCE = 8  # a training ends after so many candidates without a better one


def slices_by_length(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """bool [Q] by name: questions of users with this number of items in their history."""
    return {
        f"history {name}": (lengths >= least) & (lengths <= (np.inf if most is None else most))
        for name, (least, most) in HISTORY_LENGTHS.items()
    }


@dataclass(frozen=True)
class _Part:
    """Events to fit on, and events that are questions."""

    until_ms: int  # models are fitted on the events before
    catalogue: Catalogue  # the items of these events
    columns: np.ndarray  # int64 [items of the log], -1 for items that came later
    events: np.ndarray  # int64 [Q], the questions' places in the log


class Successive:
    """Trains and measures contenders on one log, split at the time before which a share `quantile` of its events lies.

    Raises ValueError when one side of the split has no events.
    """

    def __init__(
        self, log: Interactions, quantile: float, *, device: torch.device, progress: Progress, on_measured: OnMeasured
    ) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"the quantile must be between 0 and 1, got {quantile}")
        self._log, self._device, self._progress, self._on_measured = log, device, progress, on_measured
        self._timeline = Timeline(log)
        self._chosen: dict[Callable[..., object], Settings] = {}
        self._second_stage = SecondStage(log, self._timeline)
        cut_ms = int(np.quantile(log.times_ms, quantile, method="higher"))
        inner_ms = (
            int(np.quantile(log.times_ms[log.times_ms < cut_ms], quantile, method="higher"))
            if (log.times_ms[0] < cut_ms)
            else cut_ms
        )
        self._test, self._choice = self._part(cut_ms, None), self._part(inner_ms, cut_ms)
        if not len(self._choice.catalogue.items) or not len(self._choice.events):
            raise ValueError(f"{log.name}: too few moments to cut it at {quantile} of its events")

    def _part(self, from_ms: int, to_ms: int | None) -> _Part:
        log = self._log
        known = np.unique(log.items[log.times_ms < from_ms])
        columns = np.full(len(log.item_ids), -1)
        columns[known] = np.arange(len(known))
        index = ItemIndex([log.item_ids[item] for item in known.tolist()])
        asked = (log.times_ms >= from_ms) & (True if to_ms is None else log.times_ms < to_ms)
        return _Part(from_ms, Catalogue(index), columns, np.flatnonzero(asked))

    @property
    def users(self) -> np.ndarray:
        """int64 [Q]: the user of each question."""
        return self._log.users[self._test.events]

    def slices(self) -> dict[str, np.ndarray]:
        """bool [Q] by name: questions by history length, by whether the item is known, and by whether it repeats."""
        events = self._test.events
        lengths, repeats = self._timeline.lengths(events), self._timeline.repeats(events)
        unknown = self._test.columns[self._log.items[events]] < 0
        return slices_by_length(lengths) | {
            "unknown item": unknown,
            "known user and item": (lengths > 0) & ~unknown,
            "first meeting": ~repeats,
            "repeat": repeats,
        }

    def row(self, name: str, contender: Contender, seeds: int) -> Row:
        """The figures of one contender over `seeds` trainings; its settings are chosen once."""
        row = Row(name)
        chosen = self._settings(name, contender)
        for seed in range(seeds if contender.seeded else 1):
            label = f"{name}, seed {seed + 1} of {seeds}" if contender.seeded else name
            self._progress(label, 0.0)
            start = time.perf_counter()
            if name == FRESH_POPULARITY:
                settings, fitted = chosen, time.perf_counter()
                ranks = self._popularity_ranks(self._test, chosen["half_life_days"])
            else:
                ranks, settings, fitted = self._measure(label, contender, seed, chosen)
            asked = time.perf_counter()
            figures = Figures(next_figures(ranks), {"users_per_second": len(ranks) / (asked - fitted)})
            row.add(settings, figures, fitted - start)
            self._progress(label, 1.0)
            self._on_measured(row)
        return row

    def _measure(
        self, label: str, contender: Contender, seed: int, chosen: Settings
    ) -> tuple[np.ndarray, Settings, float]:
        """(ranks int64 [Q], their settings, the clock after fitting)."""
        choice = self._second_stage_of(label, contender, seed, chosen) if contender.second_stage else None
        part, ranker = self._test, self._fitted(self._test, contender, seed, chosen)
        fitted = time.perf_counter()
        if choice is not None and choice.reranker is not None:
            return self._second_stage.ranks(ranker, choice.reranker, part.columns, part.events), chosen, fitted
        if choice is not None and choice.demand_ndcg > choice.model_ndcg:
            # Such a model does not go live, and popularity is served.
            popular = self._settings(FRESH_POPULARITY, CONTENDERS[FRESH_POPULARITY])
            return self._popularity_ranks(part, popular["half_life_days"]), popular, fitted
        return self._ranks(ranker, part, part.events), chosen, fitted

    def _fitted(self, part: _Part, contender: Contender, seed: int, chosen: Settings) -> Any:
        """The fitted contender: a ranker, and also a `FirstStage` if it has a second stage."""
        histories = self._timeline.before(part.until_ms, part.columns)
        (trained,) = contender.train(part.catalogue, histories, seed, self._device, chosen)
        return trained.ranker

    def _second_stage_of(self, label: str, contender: Contender, seed: int, chosen: Settings) -> RerankerChoice:
        """The reranker from the questions for the choice of settings, on which its first stage was not fitted."""
        part, label = self._choice, f"{label}: reranker"
        first_stage = self._fitted(part, contender, seed, chosen)
        told = partial(self._progress, label)
        return self._second_stage.learn(first_stage, part.columns, part.events, seed, told)

    def _settings(self, name: str, contender: Contender) -> Settings:
        """The chosen settings. They are chosen once for rows that train in the same way, which differ only in their
        second stage."""
        if (chosen := self._chosen.get(contender.train)) is None:
            chosen = self._chosen[contender.train] = self._choose(name, contender)
        return chosen

    def _choose(self, name: str, contender: Contender) -> Settings:
        part, label = self._choice, f"{name}: settings"
        self._progress(label, 0.0)
        best: tuple[float, Settings] = (-1.0, {})
        if name == FRESH_POPULARITY:
            for done, days in enumerate(HALF_LIVES_DAYS, 1):
                value = float(next_figures(self._popularity_ranks(part, days))[3].mean())
                best = max(best, (value, {"half_life_days": days}), key=lambda found: found[0])
                self._progress(label, done / len(HALF_LIVES_DAYS))
            return best[1]
        events, since = part.events[:: -(-len(part.events) // _CHOICE_QUESTIONS)], 0
        histories = self._timeline.before(part.until_ms, part.columns)
        for done, trained in enumerate(contender.train(part.catalogue, histories, 0, self._device, None), 1):
            if contender.candidates == 1:
                return trained.settings
            value = float(next_figures(self._ranks(trained.ranker, part, events))[3].mean())
            since += 1
            if value > best[0]:
                best, since = (value, trained.settings), 0
            self._progress(label, done / contender.candidates)
            if contender.seeded and since >= _PATIENCE:
                break
        return best[1]

    def _popularity_ranks(self, part: _Part, half_life_days: float) -> np.ndarray:
        return fresh_popularity_ranks(self._log, self._timeline, part.events, half_life_days, CUTOFF)

    def _ranks(self, ranker: Ranker, part: _Part, events: np.ndarray) -> np.ndarray:
        """int64 [Q]: the rank of each event's item in the list for its user's history, 0 beyond the cutoff."""
        ranks = np.zeros(len(events), dtype=np.int64)
        for start in range(0, len(events), _QUESTIONS_PER_BLOCK):
            block = events[start : start + _QUESTIONS_PER_BLOCK]
            listed = ranker.rank(self._timeline.histories(block, part.columns), CUTOFF).columns
            wanted = part.columns[self._log.items[block]]
            hit = (listed == wanted[:, None]) & (wanted >= 0)[:, None]
            ranks[start : start + len(block)] = np.where(hit.any(1), hit.argmax(1) + 1, 0)
        return ranks
