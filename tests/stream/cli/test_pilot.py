"""`freshet pilot` against a topic, without a pipeline."""

import json
from pathlib import Path

import pytest

from stream.clients.connection import KafkaConnection
from stream.pilots.pilot import CONTROL
from stream.pilots.topic import PilotSender
from stream.wire.topics import TopicPlan
from tests.support.commands import Done, freshet
from tests.support.pilot_counts import counted

pytestmark = pytest.mark.kafka


class Operator:
    def __init__(self, kafka: KafkaConnection, prefix: str) -> None:
        self._environment = {"FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "FRESHET_TOPICS__PREFIX": prefix}
        self._prefix = prefix

    def pilot(self, command: str, *arguments: str) -> Done:
        environment = {"FRESHET_BOOTSTRAP_SERVERS": self._environment["FRESHET_BOOTSTRAP_SERVERS"]}
        return freshet("pilot", command, *arguments, "--prefix", self._prefix, environment=environment)

    def did(self, command: str, *arguments: str) -> str:
        done = self.pilot(command, *arguments)
        assert done.exit_code == 0, done
        return done.output

    def refused(self, command: str, *arguments: str) -> str:
        return self.pilot(command, *arguments).refusal


def test_a_pilot_from_its_start_to_its_end(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> None:
    operator = Operator(kafka, topics.prefix)
    assert "there is no pilot" in operator.refused("report")
    assert "there is no pilot" in operator.refused("stop")
    for wrong, why in (
        ("b=ranking=best", "best"),
        ("b=list_items=20", "can only be shorter"),
        ("control=ranking=model", "everybody else"),
    ):
        assert why in operator.refused("start", "p", "--variant", wrong)
    assert "0.1" in operator.did("start", "p", "--variant", "b=ranking=popularity", "--share", "0.1")
    assert "is running" in operator.refused("start", "q", "--variant", "b=ranking=model")
    sender = PilotSender(kafka, topics.pilots)
    sender.open()
    sender.send(counted({CONTROL: 0.4, "b": 0.5}, {CONTROL: 900, "b": 100}))
    sender.close()

    table = operator.did("report")
    assert "better" in table and "ranking=popularity" in table and "as declared" in table
    picture = tmp_path / "pilot.png"
    found = json.loads(operator.did("report", "--json", "--png", str(picture)))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [(arm["variant"], arm["verdict"]) for arm in found["variants"]] == [("control", ""), ("b", "better")]
    assert found["state"] == "running" and found["share"] == 0.1

    assert "0.5" in operator.did("stage")
    assert "has the share 0.5 already" in operator.refused("stage", "0.5")
    assert json.loads(operator.did("report", "--json"))["stage"] == 2
    operator.did("stop", "--reason", "b is the setting now")
    assert "over already" in operator.refused("stop")
    assert "b is the setting now" in operator.did("report")
    assert "there was a pilot p before" in operator.refused("start", "p", "--variant", "b=ranking=model")
    assert "only p" in operator.refused("report", "x")
