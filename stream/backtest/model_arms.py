"""Arms with a diffusion model that is never trained again, or trained from scratch: what is retraining worth?"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from model.artifact import Manifest, load_recommender, save_artifact
from model.items import ItemIndex
from model.learner import Learner
from model.recommend import Recommender
from stream.backtest.arms import Service, pack_all
from stream.backtest.system import System
from stream.backtest.timeline import Batch, HistoryTimeline
from stream.trainer.fine_tune import FineTuneConfig, Stopped, epochs_for
from stream.wire.records import Announcement

__all__ = ["Frozen", "Retrained"]


class Frozen:
    """Always answers with the system's first model, and with the current histories."""

    name = "frozen"

    def __init__(self, service: Service, system: System, device: torch.device) -> None:
        self._service, self._system, self._device = service, system, device
        self._model: tuple[Announcement, Recommender] | None = None

    @property
    def train_seconds(self) -> float:
        """Seconds of the rounds until the first model."""
        seconds = 0.0
        for report in self._system.state.rounds:
            seconds += report.train_seconds
            if report.outcome == "promoted":
                break
        return seconds

    def ranks(self, batch: Batch) -> np.ndarray:
        first = self._system.state.first
        if first is None:
            return np.array([self._service.popularity_rank(question) for question in batch.questions], dtype=np.int64)
        if self._model is None:
            self._model = first, load_recommender(first.address, first.sha256, self._device)
        return self._service.recommender_ranks(self._model[1], batch.questions)

    def learn(self, batch: Batch) -> None:
        """This arm learns nothing."""

    def round_held(self, timeline: HistoryTimeline) -> None:
        """The model stays the same."""


class Retrained:
    """A model that is trained from scratch on all users whenever the system holds a round, and served without a gate.

    `round_held` raises `Stopped` when `stop` ended the training.
    """

    name = "retrained"

    def __init__(
        self,
        service: Service,
        config: FineTuneConfig,
        seed: int,
        device: torch.device,
        folder: str,
        stop: Callable[[], bool],
    ) -> None:
        self._service, self._config, self._seed, self._device = service, config, seed, device
        self._folder, self._stop = folder, stop
        self.train_seconds, self.fits = 0.0, 0
        self._model: Recommender | None = None
        self._met: dict[str, None] = {}
        self._newest_ms = 0

    def ranks(self, batch: Batch) -> np.ndarray:
        if self._model is None:
            return np.array([self._service.popularity_rank(question) for question in batch.questions], dtype=np.int64)
        return self._service.recommender_ranks(self._model, batch.questions)

    def learn(self, batch: Batch) -> None:
        self._met.update(dict.fromkeys(question.item for question in batch.questions))
        self._newest_ms = batch.newest_ms

    def round_held(self, timeline: HistoryTimeline) -> None:
        start = time.perf_counter()
        index = ItemIndex(tuple(self._met))
        histories = pack_all(index, timeline.everybody(), self._service.kinds, self._newest_ms)
        learner = Learner.fresh(self._config.model, index, seed=self._seed + self.fits, device=self._device)
        epochs = epochs_for(learner, histories, self._config.first_epochs, self._config.first_updates)
        if learner.fit(histories, epochs=epochs, stop=self._stop).stopped:
            raise Stopped
        self.train_seconds += time.perf_counter() - start
        self.fits += 1
        version = f"retrained-{self.fits}"
        self._model = learner.recommender(version)
        manifest = Manifest(version=version, created=self._newest_ms, data_until=self._newest_ms)
        save_artifact(f"{self._folder}/{version}", learner, manifest)

    def resume(self, fits: int, train_seconds: float) -> None:
        """Serve the last model from before the backtest was interrupted."""
        self.fits, self.train_seconds = fits, train_seconds
        if fits:
            self._model = load_recommender(f"{self._folder}/retrained-{fits}", None, self._device)
