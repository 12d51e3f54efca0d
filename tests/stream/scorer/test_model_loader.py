"""Scorers serve what was announced, to whom it was announced."""

import threading
from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry

from model.errors import ModelError
from model.recommend import Recommender
from ops.metrics import ScorerMetrics
from stream.clients.connection import KafkaConnection
from stream.registry.slots import Slots, SlotWriter
from stream.scorer.model_loader import ModelLoader
from stream.scorer.models import Models
from stream.wire.records import Announcement
from stream.wire.topics import TopicPlan
from tests.stream.scorer.known_models import fixed
from tests.support.scoring import NOW

pytestmark = pytest.mark.kafka


def announcement(version: str, share: float = 0.0) -> Announcement:
    return Announcement("live", version, version, version, "", NOW, NOW, 8, share=share)


def test_the_share_of_users_that_a_canary_answers_is_what_was_announced_with_it(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path
) -> None:
    """No scorer has a setting for it, so that all of them choose the same users."""
    served: list[Models] = []
    swapped = threading.Event()

    def swap(models: Models) -> None:
        served.append(models)
        swapped.set()

    def load(address: str, sha256: str | None, device: torch.device) -> Recommender:
        return fixed(address, "abc")

    writer = SlotWriter(kafka, topics.models)
    writer.move({"live": announcement("v1"), "candidate": announcement("v2", 0.3)})
    metrics = ScorerMetrics(CollectorRegistry())
    loader = ModelLoader(kafka, topics.models, torch.device("cpu"), metrics, swap, 3, 3, load)
    loader.start()
    try:
        assert loader.looked.wait(30)
        live, canary = served[-1].live, served[-1].canary
        assert live is not None and canary is not None
        assert (live.version, canary.version, served[-1].canary_share) == ("v1", "v2", 0.3)
        swapped.clear()
        writer.move({"candidate": announcement("v2", 0.6)})
        assert swapped.wait(30) and served[-1].canary_share == 0.6
        swapped.clear()
        writer.move({"candidate": None})
        assert swapped.wait(30) and (served[-1].canary, served[-1].canary_share) == (None, 0.0)
    finally:
        loader.close()
        writer.close()


def test_whoever_waits_for_an_announcement_is_told_when_its_model_serves_and_also_when_it_does_not_load(
    kafka: KafkaConnection, topics: TopicPlan
) -> None:
    served: list[Models] = []
    loads = threading.Event()

    def load(address: str, sha256: str | None, device: torch.device) -> Recommender:
        assert loads.wait(30)
        if address == "broken":
            raise ModelError("no such artifact")
        return fixed(address, "abc")

    writer = SlotWriter(kafka, topics.models)
    metrics = ScorerMetrics(CollectorRegistry())
    loader = ModelLoader(kafka, topics.models, torch.device("cpu"), metrics, served.append, 3, 3, load)
    loader.start()
    try:
        for version in ("v1", "broken"):
            writer.move({"live": announcement(version)})
            follower = Slots(kafka, topics.models)
            offset = follower.live_offset
            follower.close()
            assert not loader.looked.wait(0.5, offset)
            loads.set()
            assert loader.looked.wait(30, offset)
            assert served[-1].live is not None and served[-1].live.version == "v1"
            loads.clear()
    finally:
        loads.set()
        loader.close()
        writer.close()
