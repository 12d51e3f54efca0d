"""The whole of Freshet as an operator runs it: real Kafka, real processes, an independent client, kill -9."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rocksdict
from confluent_kafka import Consumer, Producer
from kafka import KafkaProducer

from state import codec
from state.history import Entry
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.demo.audit import changelog_histories, differences, last_values, reference_merge, stored_histories
from stream.sources.simulate import World, WorldConfig, encode_event
from stream.wire.topics import TopicPlan
from tests.support.whole import freshet

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


def newest(kafka: KafkaConnection, topic: str, user: str) -> bytes | None:
    return last_values(kafka, topic).get(user.encode())


def entries(folder: Path) -> Iterator[tuple[bytes, bytes]]:
    """What the RocksDB folders below a folder hold, once nobody has them open."""
    for current in folder.rglob("CURRENT"):
        store = rocksdict.Rdict(str(current.parent), rocksdict.Options(raw_mode=True))
        yield from list(store.items())
        store.close()


def stored(kafka: KafkaConnection, plan: TopicPlan, folder: Path) -> dict:
    with admin_client(kafka) as admin:
        return stored_histories(admin, plan.histories, [folder / "updater" / "histories"])


def test_another_client_gets_a_new_list_within_two_seconds(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    """librdkafka, with nothing but the JSON of the README."""
    with freshet(tmp_path, kafka, plan) as running:
        workers = ("updater", "scorer", "trainer")
        assert [running.probe(worker, "/healthz") for worker in workers] == ["", "", ""]
        running.until(lambda: running.probe("updater", "/readyz") == "", "the updater being ready")
        running.until(lambda: running.probe("trainer", "/readyz") == "", "the trainer being ready")
        assert "no model is live and no event" in running.probe("scorer", "/readyz")
        servers = {"bootstrap.servers": kafka.bootstrap_servers}
        consumer = Consumer(servers | {"group.id": f"{plan.prefix}mine", "auto.offset.reset": "earliest"})
        consumer.subscribe([plan.recommendations])
        producer = Producer(servers | {"partitioner": "murmur2_random", "linger.ms": 0})

        def exchange(user: str, item: str, seconds: float) -> dict:
            now_ms = int(time.time() * 1000)
            event = {"user": user, "item": item, "timestamp": now_ms}
            producer.produce(plan.interactions, key=user, value=json.dumps(event))
            producer.flush()
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                message = consumer.poll(0.05)
                if message is not None and not message.error() and message.key() == user.encode():
                    answer = json.loads(message.value())
                    if answer["as_of"] == now_ms:
                        return answer
            raise AssertionError(f"no list for {user} within {seconds} s")

        exchange("first", "popular", 30)  # joining the group takes the consumer its time
        assert running.probe("scorer", "/readyz") == ""  # popularity answers
        answer = exchange("ann", "tea", 2)
        assert answer["user"] == "ann" and answer["reason"] == "event"
        assert answer["variant"] == "popularity" and answer["model"] == ""
        assert [scored["item"] for scored in answer["items"]] == ["popular"]
        assert answer["published"] >= answer["as_of"]
        consumer.close()


def test_killed_processes_come_back_and_nothing_is_lost(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    world = World(WorldConfig(users=60, items=48, launch_events=500), np.random.default_rng(5))
    expected: list[tuple[str, Entry]] = []
    producer = KafkaProducer(**kafka.kafka_python(), linger_ms=2)

    def send(count: int) -> None:
        for _ in range(count):
            event, now_ms = world.event(), int(time.time() * 1000)
            key, value = encode_event(event, now_ms)
            expected.append((f"u{event.user}", Entry(now_ms, f"i{event.item}", 1.0, "view")))
            producer.send(plan.interactions, value, key=key)
            time.sleep(0.002)

    with freshet(tmp_path, kafka, plan) as running:
        send(400)
        running.until(lambda: running.total("freshet_model_promotions_total") >= 1, "the first model")
        for victim in ("updater", "scorer", "trainer"):
            before = running.pid(victim)
            os.kill(before, signal.SIGKILL)
            send(200)

            def restarted(victim: str = victim) -> bool:
                return running.pipeline.supervisor.children[victim].restarts > 0

            running.until(restarted, "a restart")
            running.until(running.ready, f"{victim} coming back")
            assert running.pid(victim) != before
        send(200)
        producer.flush()
        merged = reference_merge(expected, 200)
        running.until(lambda: changelog_histories(kafka, plan.histories) == merged, "taking everything in")
        running.until(lambda: running.total("freshet_recommendations_published_total", variant="control") > 0, "lists")
    producer.close()
    assert differences(stored(kafka, plan, tmp_path), merged) == []


def test_a_forgotten_user_is_gone_everywhere_and_stays_gone_when_old_events_come_again(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    began = int(time.time() * 1000)
    old = {f"u{user}": [(f"i{(user + n) % 12}", began + n) for n in range(10)] for user in range(30)}
    producer = KafkaProducer(**kafka.kafka_python(), linger_ms=2)

    def send(user: str) -> None:
        for item, time_ms in old[user]:
            event = {"user": user, "item": item, "timestamp": time_ms}
            producer.send(plan.interactions, json.dumps(event).encode(), key=user.encode())

    with freshet(tmp_path, kafka, plan) as running:
        for user in old:
            send(user)
        producer.flush()
        running.until(lambda: running.total("freshet_model_promotions_total") >= 1, "the first model")
        running.until(lambda: newest(kafka, plan.recommendations, "u7") is not None, "a list")
        producer.send(plan.interactions, None, key=b"u7")
        producer.flush()
        running.until(lambda: newest(kafka, plan.recommendations, "u7") is None, "forgetting the list")
        before = running.total("freshet_events_applied_total")
        send("u7")  # a replay of what was forgotten
        send("u8")
        producer.flush()
        running.until(lambda: running.total("freshet_events_applied_total") >= before + 20, "the replay")
        learnt = running.total("freshet_training_rounds_total")
        for user in old.keys() - {"u7"}:  # enough news for another round
            old[user] = [(f"i{n}", int(time.time() * 1000) + n) for n in range(12)]
            send(user)
        producer.flush()
        running.until(lambda: running.total("freshet_training_rounds_total") > learnt, "another round")
    producer.close()
    kept = changelog_histories(kafka, plan.histories)["u7"]
    assert kept.items == () and kept.forgotten_ms >= began
    assert newest(kafka, plan.recommendations, "u7") is None
    ours = {path: list(entries(path)) for path in sorted(tmp_path.glob("*/*")) if list(path.rglob("CURRENT"))}
    assert {path.name for path in ours} >= {"histories", "view", "lists"}
    for path, found in ours.items():
        if path.name in ("item-lists", "item-counts"):  # which name items only
            assert not any(b"u7" in key for key, _ in found)
            continue
        assert any(b"u8" in key for key, _ in found), path
        of_u7 = [value for key, value in found if key.endswith(b"u7")]
        # The time of forgetting is kept, in every partition that the wish reached.
        assert {codec.decode(value).items for value in of_u7} == ({()} if path.name == "histories" else set()), path
