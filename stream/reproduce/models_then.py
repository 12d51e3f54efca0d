"""Loads models that were announced, each once, from their artifacts."""

from __future__ import annotations

from collections.abc import Callable

import torch

from model.artifact import load_recommender
from model.errors import ModelError
from model.recommend import Recommender
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.scorer.journal import ServedBy
from stream.scorer.model_loader import warm_up
from stream.wire.records import Announcement, Rejected

__all__ = ["ModelsThen", "NoModel", "announced_models"]


class NoModel(RuntimeError):
    """A model that is not available any more."""


class ModelsThen:
    """`lengths` are those of the lists that will be made: without a second stage, and of candidates with their
    terms."""

    def __init__(self, announced: dict[str, ServedBy], device: torch.device, lengths: tuple[int, int]) -> None:
        self._announced, self._device, self._lengths = announced, device, lengths
        self._loaded: dict[str, Recommender] = {}  # by sha256

    def load(self, served: ServedBy) -> Recommender:
        """Raises `NoModel` when the artifact is gone, or is not the one that served."""
        found = self._loaded.get(served.sha256)
        if found is None:
            try:
                found = load_recommender(served.address, served.sha256, self._device)
                warm_up(found, *self._lengths)
            except (ModelError, OSError, ImportError, ValueError) as error:
                raise NoModel(f"the artifact of {served.version} ({served.sha256[:16]}): {error}") from None
            self._loaded[served.sha256] = found
        return found

    def named(self, version: str, digest: str) -> Recommender:
        """The model with this version and these first digits of its sha256, which a list has. Raises `NoModel`."""
        served = self._announced.get(digest)
        if served is None:
            raise NoModel(f"no announcement of {version} ({digest}) is left, which says where its artifact lies")
        return self.load(served)


def announced_models(connection: KafkaConnection, topic: str, refused: Callable[[str], None]) -> dict[str, ServedBy]:
    """Every model on the topic `models`, by the first digits of its sha256; `refused` is called for invalid records."""
    found: dict[str, ServedBy] = {}
    with TopicReader(connection) as reader:
        reader.assign(reader.partitions(topic))
        reader.to_beginning()
        for record in reader.read_to_end():
            if record.value is None:
                continue
            try:
                announced = Announcement.decode(record.value)
            except Rejected as error:
                refused(f"{topic}@{record.offset}: {error}")
                continue
            found[announced.sha256[:16]] = ServedBy(announced.version, announced.address, announced.sha256)
    return found
