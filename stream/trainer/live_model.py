"""The live model in memory: candidates are compared with it, and so are the scorers' lists."""

from __future__ import annotations

import logging

import torch

from model.errors import ModelError
from model.recommend import Recommender
from stream.registry.artifacts import Artifacts, Provenance
from stream.wire.records import Announcement

__all__ = ["LiveModel"]

log = logging.getLogger(__name__)


class LiveModel:
    """`recommender` is None when no model is live, or when the live one cannot be used."""

    def __init__(self, artifacts: Artifacts, device: torch.device) -> None:
        self._artifacts, self._device = artifacts, device
        self.announcement: Announcement | None = None  # of the live model, usable or not
        self.recommender: Recommender | None = None
        self.provenance: Provenance | None = None  # the records that the model learnt; None unless it was loaded

    def follow(self, live: Announcement | None) -> bool:
        """Load the live model if it differs from the one followed so far; returns whether it does."""
        if live == self.announcement:
            return False
        self.announcement, self.recommender, self.provenance = live, None, None
        if live is None:
            return True
        try:
            learner, self.provenance = self._artifacts.load(live, self._device)
            self.recommender = learner.recommender(live.version)
        except ModelError as error:
            log.error("the live model %s cannot be used; the next round starts from nothing: %s", live.version, error)
            self.provenance = None
        return True

    def take(self, live: Announcement, recommender: Recommender | None) -> None:
        """Follow a model that this trainer promoted and has in memory already."""
        self.announcement, self.recommender, self.provenance = live, recommender, None
