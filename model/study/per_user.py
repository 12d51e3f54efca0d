"""Splits of each user's own history: the protocols `paper` and `per-user`.

    paper      fit on train, choose the settings on last, measure middle (the input is train; train and last are
               masked), as for the published tables
    per-user   choose the settings on middle (fitted on train), refit on train and middle, measure last with both as the
               input

Both split each user at a different time, so the training part has events that are later than test events of other
users. Only the protocol `global` shows how well a model follows changing demand.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from model.batch import Histories
from model.ranker import Ranker
from model.study.contenders import Contender, Settings, Trained
from model.study.dataset import Dataset, joined
from model.study.figures import Figures, held_out_figures
from model.study.progress import OnMeasured, Progress
from model.study.report import Row
from model.study.variety import VariedRanker
from model.variety import VarietyConfig

__all__ = ["PerUser"]

_PATIENCE = 4  # a training ends after so many candidates without a better one


class PerUser:
    """Trains and measures contenders on one dataset."""

    def __init__(
        self, data: Dataset, *, as_published: bool, device: torch.device, progress: Progress, on_measured: OnMeasured
    ) -> None:
        self._data, self._as_published, self._device = data, as_published, device
        self._progress, self._on_measured = progress, on_measured
        self._both = joined(data.middle, data.train)

    def row(self, name: str, contender: Contender, seeds: int) -> Row:
        """The figures of one contender over `seeds` trainings."""
        return self.rows(name, contender, seeds)[0]

    def rows(self, name: str, contender: Contender, seeds: int, variety: Sequence[float] = ()) -> list[Row]:
        """The figures of one contender over `seeds` trainings, and those of its lists with each `variety`, see
        `VarietyConfig.popular`."""
        row, varied = Row(name), {popular: Row(f"{name}, variety {popular:g}") for popular in variety}
        chosen: Settings | None = None
        for seed in range(seeds if contender.seeded else 1):
            label = f"{name}, seed {seed + 1} of {seeds}" if contender.seeded else name
            if self._as_published:
                settings, figures, seconds = self._paper(contender, seed, label)
            else:
                if chosen is None:
                    chosen = self._choose(contender, seed, f"{label}: settings")
                start = time.perf_counter()
                self._progress(label, 0.0)
                (trained,) = contender.train(self._data.catalogue, self._both, seed, self._device, chosen)
                seconds = time.perf_counter() - start
                settings, figures = chosen, self._measure(trained.ranker, self._both, self._data.last)
                for popular, other in varied.items():
                    other.add(settings, self._measure_varied(trained.ranker, popular), seconds)
            row.add(settings, figures, seconds)
            self._progress(label, 1.0)
            self._on_measured(row)
            for other in varied.values():
                self._on_measured(other)
        return [row, *varied.values()]

    def _measure_varied(self, ranker: Ranker, popular: float) -> Figures:
        popularity = np.bincount(self._both.columns, minlength=len(self._data.catalogue.items))
        config = VarietyConfig(popular=popular)
        return self._measure(VariedRanker(ranker, popularity, config), self._both, self._data.last)

    def _measure(
        self, ranker: Ranker, histories: Histories, held_out: Histories, masked: Histories | None = None
    ) -> Figures:
        items = len(self._data.catalogue.items)
        popularity = np.bincount(histories.columns, minlength=items)
        return held_out_figures(ranker, histories, held_out, items, popularity, masked)

    def _paper(self, contender: Contender, seed: int, label: str) -> tuple[Settings, Figures, float]:
        data = self._data
        best: tuple[float, Trained] | None = None
        start, since, measuring = time.perf_counter(), 0, 0.0
        for done, trained in enumerate(contender.train(data.catalogue, data.train, seed, self._device, None), 1):
            before = time.perf_counter()
            value = float(np.nanmean(self._measure(trained.ranker, data.train, data.last).values[1]))
            since += 1
            if best is None or value > best[0]:
                best, since = (value, trained), 0
            measuring += time.perf_counter() - before
            self._progress(label, done / contender.candidates)
            if contender.seeded and since >= _PATIENCE:
                break
        seconds = time.perf_counter() - start - measuring
        assert best is not None  # every contender has a candidate
        chosen = best[1]
        return chosen.settings, self._measure(chosen.ranker, data.train, data.middle, masked=data.last), seconds

    def _choose(self, contender: Contender, seed: int, label: str) -> Settings:
        data = self._data
        best: tuple[float, Settings] = (-1.0, {})
        since = 0
        for done, trained in enumerate(contender.train(data.catalogue, data.train, seed, self._device, None), 1):
            value = float(np.nanmean(self._measure(trained.ranker, data.train, data.middle).values[3]))
            since += 1
            if value > best[0]:
                best, since = (value, trained.settings), 0
            self._progress(label, done / contender.candidates)
            if contender.seeded and since >= 2 * _PATIENCE:
                break
        return best[1]
