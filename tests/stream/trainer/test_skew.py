"""Whether the scorers recommend what the trainer would is known after enough lists, and always about the newest."""

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
import pytest
from kafka import KafkaProducer
from prometheus_client import CollectorRegistry

from model.batch import Histories
from model.items import ItemIndex
from model.ranker import Hidden, Ranked
from ops.metrics import TrainerMetrics
from state.history import History
from stream.clients.connection import KafkaConnection
from stream.trainer.skew import PublishedLists, SkewCheck
from stream.wire.records import Recommendation, ScoredItem
from stream.wire.topics import TopicPlan

pytestmark = pytest.mark.kafka

NOW = 1_700_000_000_000
RIGHT, WRONG = "abcdefghij", "zyxwvutsrq"


class Alphabet:
    """Ranks a to z for everybody."""

    items = ItemIndex([chr(97 + n) for n in range(26)])
    reranker = None

    def __init__(self, version: str = "m1") -> None:
        self.version = version

    def rank(self, histories: Histories, k: int, hidden: Hidden | None = None) -> Ranked:
        columns = np.tile(np.arange(k), (len(histories), 1))
        return Ranked(columns, -columns.astype(np.float32))


def known(number: int, users: list[bytes]) -> Mapping[bytes, History]:
    return {user: History(("z",), (NOW,), (1.0,)) for user in users}


class World:
    """Lists on a topic of two partitions, and the trainer's comparison with them."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan) -> None:
        self._topic = plan.recommendations
        self._producer = KafkaProducer(**kafka.kafka_python())
        self.lists = PublishedLists(kafka, self._topic, plan.partitions)
        self._users = 0

    def publish(self, count: int, items: str, model: str = "m1", partition: int | None = None) -> None:
        for _ in range(count):
            self._users += 1
            user = f"u{self._users}"
            scored = tuple(ScoredItem(item, 0.0) for item in items)
            value = msgspec.json.encode(Recommendation(user, scored, model, "control", NOW, "event", NOW))
            where = self._users % 2 if partition is None else partition
            self.send(user, value, where)
        self._producer.flush()

    def send(self, user: str, value: bytes | None, partition: int) -> None:
        self._producer.send(self._topic, value, key=user.encode(), partition=partition)

    def differing(self, model: str = "m1") -> float | None:
        return self.lists.differing(Alphabet(model), known)  # type: ignore[arg-type]

    def close(self) -> None:
        self.lists.close()
        self._producer.close()


@pytest.fixture
def world(kafka: KafkaConnection, topics: TopicPlan) -> Iterator[World]:
    world = World(kafka, topics)
    yield world
    world.close()


def test_one_busy_partition_is_enough(world: World) -> None:
    world.publish(120, RIGHT, partition=0)
    assert world.differing() == 0.0


def test_a_slow_stream_gets_its_verdict_in_the_end(world: World) -> None:
    for _ in range(3):
        world.publish(30, WRONG)
        assert world.differing() is None
    world.publish(30, WRONG)
    assert world.differing() == 1.0


def test_scorers_that_were_mended_are_not_held_to_what_they_published_before(world: World) -> None:
    world.publish(150, WRONG)
    assert world.differing() == 1.0
    assert world.differing() == 1.0  # nothing new: the verdict stands
    world.publish(60, RIGHT)
    assert world.differing() == 1.0  # too few to say otherwise
    world.publish(60, RIGHT)
    assert world.differing() == 0.0


def test_another_model_begins_without_a_verdict(world: World) -> None:
    world.publish(150, WRONG)
    assert world.differing() == 1.0
    assert world.differing("m2") is None
    world.publish(150, RIGHT, model="m2")
    assert world.differing("m2") == 0.0


def test_the_gate_is_shut_by_lists_of_the_live_model_and_opens_with_another(world: World) -> None:
    """One with a reranker is never compared: its lists depend on counts that only the scorers have."""
    registry = CollectorRegistry()
    check = SkewCheck(world.lists, TrainerMetrics(registry))

    def turn(model: Alphabet) -> bool:
        check._due = 0.0
        check.turn(model, known)  # type: ignore[arg-type]
        return check.shut

    assert not turn(Alphabet("m1"))
    world.publish(150, WRONG)
    assert turn(Alphabet("m1")) and turn(Alphabet("m1"))
    assert registry.get_sample_value("freshet_train_serve_mismatch_ratio") == 1.0
    reranked = Alphabet("m2")
    reranked.reranker = object()  # type: ignore[assignment]
    assert not turn(reranked)
    assert registry.get_sample_value("freshet_train_serve_mismatch_ratio") == 0.0


def test_tombstones_and_foreign_records_are_no_lists(world: World) -> None:
    world.send("gone", None, 0)
    world.send("foreign", b"not a list", 1)
    world.publish(120, RIGHT)
    assert world.differing() == 0.0
