"""A variant that does harm is stopped once, whatever happens to the trainer meanwhile."""

from collections.abc import Iterator

import pytest
from kafka.errors import KafkaTimeoutError
from prometheus_client import CollectorRegistry

import stream.trainer.pilot_guard as guarding
from ops.metrics import TrainerMetrics
from stream.clients.connection import KafkaConnection
from stream.pilots.pilot import CONTROL, ListSettings, Variant, started
from stream.pilots.topic import PilotReader, PilotSender, write_pilot
from stream.trainer.pilot_guard import PilotGuard
from stream.wire.topics import TopicPlan
from tests.support.pilot_counts import counted

pytestmark = pytest.mark.kafka

PILOT = started("p", [Variant("b", ListSettings("popularity"))], 0.5, 0.05, 1_000)
USERS = {CONTROL: 500, "b": 500}


class Watched:
    def __init__(self, kafka: KafkaConnection, topic: str) -> None:
        self.kafka, self.topic = kafka, topic
        self.sender = PilotSender(kafka, topic)
        self.sender.open()
        self.guards: list[PilotGuard] = []
        self.registry = CollectorRegistry()
        write_pilot(kafka, topic, PILOT)

    def counts(self, rate: float) -> None:
        self.sender.send(counted({CONTROL: 0.4, "b": rate}, USERS))
        self.sender.close()

    def guard(self) -> PilotGuard:
        """A new trainer's, which has read the topic."""
        self.registry = CollectorRegistry()
        guard = PilotGuard(self.kafka, self.topic, TrainerMetrics(self.registry), lambda: 5.0)
        self.guards.append(guard)
        return guard

    def stops(self) -> dict[str, str]:
        reader = PilotReader(self.kafka, self.topic)
        reader.close()
        return {name: stop.reason for name, stop in reader.pilots["p"].stops.items()}

    def shown(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"freshet_pilot_{name}", {"pilot": "p", **labels})


@pytest.fixture
def watched(kafka: KafkaConnection, topics: TopicPlan) -> Iterator[Watched]:
    watched = Watched(kafka, topics.pilots)
    yield watched
    for guard in watched.guards:
        guard.close()


def test_a_good_variant_is_shown_and_left_alone(watched: Watched) -> None:
    watched.counts(0.5)
    watched.guard().turn()
    assert watched.stops() == {}
    assert (watched.shown("verdict", variant="b"), watched.shown("share_ratio")) == (1, 0.5)
    low, mean, high = (watched.shown("difference", variant="b", bound=bound) for bound in ("low", "mean", "high"))
    assert low is not None and mean is not None and high is not None
    assert 0 < low < mean < high
    assert mean == pytest.approx(0.1, abs=0.02)
    assert watched.shown("users", variant="control") == 500


def test_a_harmful_variant_is_stopped_and_the_reason_kept(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.counts(0.3)

    def fails(*_: object) -> None:
        raise KafkaTimeoutError("nobody answers")

    with monkeypatch.context() as broken:  # the trainer dies with the stop decided and not written
        broken.setattr(guarding, "write_stop", fails)
        dying = watched.guard()
        dying.turn()
    assert watched.stops() == {}
    second = watched.guard()
    second.turn()
    assert "hit rate -0.09" in watched.stops()["b"]
    third = watched.guard()  # another start knows of the stop
    third.turn()
    assert watched.registry.get_sample_value("freshet_pilot_stops_total") == 0
    assert (watched.shown("verdict", variant="b"), watched.shown("share_ratio")) == (-1, 0)
