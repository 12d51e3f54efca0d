"""The examples are whole programs, and work."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import torch
from kafka import KafkaProducer

from model.artifact import Manifest, save_artifact
from model.config import preset
from model.items import ItemIndex
from model.learner import Learner
from stream.clients.connection import KafkaConnection
from stream.wire.records import Recommendation, ScoredItem
from stream.wire.topics import TopicPlan
from tests.support.api import Writer
from tests.support.updating import read_all

ROOT = Path(__file__).parents[2]


def run(name: str, *arguments: str, kafka: KafkaConnection | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if kafka is not None:
        environment["FRESHET_BOOTSTRAP_SERVERS"] = kafka.bootstrap_servers
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.kafka
def test_produce(kafka: KafkaConnection, topics: TopicPlan) -> None:
    assert run("produce.py", "ann", "tea", "view", "--topic", topics.interactions, kafka=kafka).startswith(
        topics.prefix
    )
    run("produce.py", "ann", "tea", "--forget", "--topic", topics.interactions, kafka=kafka)
    event, forget = read_all(kafka, topics.interactions)
    found = msgspec.json.decode(event.value)
    assert (event.key, found["item"], found["event"]) == (b"ann", "tea", "view")
    assert (forget.key, forget.value) == (b"ann", None)


@pytest.mark.kafka
def test_consume(kafka: KafkaConnection, topics: TopicPlan) -> None:
    shown = Recommendation("ann", (ScoredItem("tea", 1.0), ScoredItem("cup", 0.5)), "v1", "control", 1, "event", 2)
    producer = KafkaProducer(**kafka.kafka_python())
    producer.send(topics.recommendations, msgspec.json.encode(shown), key=b"ann", partition=0)
    producer.send(topics.recommendations, None, key=b"ann", partition=0)
    producer.flush()
    producer.close()
    lines = run("consume.py", "--topic", topics.recommendations, "--lists", "2", kafka=kafka).splitlines()
    assert lines == ["ann: tea, cup (by v1)", "ann: forgotten"]


@pytest.mark.kafka
def test_a_sink_of_ones_own_goes_on_where_it_was(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> None:
    writer, database = Writer(kafka, topics), tmp_path / "lists.db"

    def carried() -> dict[str, str]:
        run("own_sink.py", str(database), "--topic", topics.recommendations, "--until-idle", "2", kafka=kafka)
        with closing(sqlite3.connect(database)) as found:
            return dict(found.execute("select user, items from lists"))

    writer.list_of("ann", ["tea", "cup"])
    writer.list_of("bob", ["pot"])
    assert carried() == {"ann": '["tea", "cup"]', "bob": '["pot"]'}
    with closing(sqlite3.connect(database)) as found, found:
        found.execute("delete from lists where user = 'bob'")  # what it has behind it is not read again
    writer.list_of("cem", ["tin"], as_of=7)
    writer.raw_list("cem", None, away=1, headers=[("history", b"6 0 0")])  # forgotten before that list
    writer.raw_list("cem", None, away=1, headers=[("moved", b"")])
    writer.raw_list("ann", None)
    assert carried() == {"cem": '["tin"]'}
    writer.close()


def test_rank(tmp_path: Path) -> None:
    learner = Learner.fresh(preset("stream"), ItemIndex(["tea", "cup", "pot"]), seed=0, device=torch.device("cpu"))
    save_artifact(str(tmp_path / "v1"), learner, Manifest(version="v1", created=1, data_until=2))
    lines = run("rank.py", str(tmp_path / "v1"), "tea", "nowhere").splitlines()
    assert lines[0] == "the model does not know nowhere"
    assert {line.split()[1] for line in lines[1:]} == {"cup", "pot"}
