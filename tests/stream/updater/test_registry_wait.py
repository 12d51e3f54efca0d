"""Events whose schema nobody can tell wait in the log, visibly, while the rest of the updater goes on."""

import json
import socket
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from kafka import KafkaProducer

from state.history import Entry
from stream.clients.connection import KafkaConnection
from stream.clients.schema_registry import open_registry
from stream.demo.audit import changelog_histories, differences, reference_merge
from stream.health import Health
from stream.updater.config import UpdaterConfig
from stream.updater.registry_wait import RegistryWait
from stream.wire.mapping import PLAIN, InputMapping, own_headers
from stream.wire.topics import TopicPlan
from tests.support.fake_registry import FakeRegistry, fake_registry
from tests.support.updating import applied, interaction, read_all, rejected, running, until

NOW = 1_764_000_000_000
SCHEMA = {
    "type": "record",
    "name": "Event",
    "fields": [{"name": name, "type": kind} for name, kind in (("user", "string"), ("item", "string"), ("at", "long"))],
}


def written(registry: FakeRegistry, user: str, item: str) -> bytes:
    context = SerializationContext("interactions", MessageField.VALUE)
    serializer = AvroSerializer(SchemaRegistryClient({"url": registry.url}), json.dumps(SCHEMA))
    return serializer({"user": user, "item": item, "at": NOW}, context)


@pytest.mark.kafka
def test_a_registry_that_is_down_is_waited_for(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> None:
    open_registry.cache_clear()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mapping = InputMapping(form="avro", registry=f"http://127.0.0.1:{port}", timestamp="at")
    config = UpdaterConfig(tmp_path, history_items=10, checkpoint_seconds=0.2, input=mapping)
    health = Health(60)
    users = [f"u{n}" for n in range(12)]
    producer = KafkaProducer(**kafka.kafka_python())
    with fake_registry(port) as registry:
        first = {user: written(registry, user, "tea") for user in users}
        known = dict(registry.schemas)
    with running(config, kafka, plan, health) as metrics:
        for n, (user, value) in enumerate(first.items()):
            producer.send(plan.interactions, value, key=user.encode(), partition=n % 2)
        producer.flush()
        until(lambda: "schema registry" in health.why_unready(), "waiting for the registry")
        # What needs no schema keeps its place behind those that do.
        key, value = interaction("own", "cup", NOW)
        producer.send(plan.interactions, value, key=key, partition=0, headers=own_headers(PLAIN)).get(10)
        assert (applied(metrics), rejected(metrics)) == (0, 0)
        with fake_registry(port) as registry:
            registry.schemas |= known
            until(lambda: applied(metrics) == len(users) + 1, "all events")
            producer.send(plan.interactions, b"\x00\x00\x00\x00\x63?", key=b"u1", partition=0).get(10)
            until(lambda: rejected(metrics) == 1, "a dead letter")
        # The registry is gone again, and what it said is known.
        producer.send(plan.interactions, first["u1"], key=b"u1", partition=1).get(10)
        expected = [(user, Entry(NOW, "tea", 1.0)) for user in users] + [("own", Entry(NOW, "cup", 1.0))]
        merged = reference_merge(expected, 10)
        until(lambda: not differences(changelog_histories(kafka, plan.histories), merged), "all histories")
        until(lambda: health.why_unready() == "", "being ready again")
    producer.close()
    (letter,) = read_all(kafka, plan.dead_letters)
    assert b"schema 99 is not in the registry" in dict(letter.headers)["detail"]


def test_one_line_a_minute_says_so(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    wait = RegistryWait(lambda: now[0])
    assert (wait.waits_for, wait.pause_seconds) == ("", 0.0)
    for _ in range(130):
        wait.note(RuntimeError("no answer"))
        assert wait.waits_for == "events wait for the schema registry: no answer"
        assert 0 < wait.pause_seconds <= 0.5
        now[0] += 1
    assert len(caplog.records) == 3
    now[0] += 10
    assert (wait.waits_for, wait.pause_seconds) == ("", 0.0)
