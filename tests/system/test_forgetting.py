"""A forgotten user is gone from every topic that is compacted and from every store, also after users moved."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import rocksdict
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.cluster.repartition import repartition
from stream.demo.audit import last_values
from stream.local.pipeline import free_port
from stream.wire.topics import TopicPlan
from tests.support.updating import read_all

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
GONE, STAYS = b"ann", b"bob"


@contextmanager
def processes(kafka: KafkaConnection, plan: TopicPlan, folder: Path) -> Iterator[None]:
    """Updater, scorer and trainer."""
    environment = {**os.environ, "FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "OMP_NUM_THREADS": "1"}
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for kind in ("updater", "scorer", "trainer"):
            command = [sys.executable, "-m", "stream.cli", kind, "--prefix", plan.prefix]
            command += ["--partitions", str(plan.partitions), "--metrics-port", str(free_port())]
            command += ["--state-dir", str(folder / kind)]
            output = stack.enter_context((folder / f"{kind}.log").open("ab"))
            child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
            stack.callback(child.wait, 30)
            stack.callback(child.terminate)
        yield


def until(condition: Callable[[], object], what: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.5)


def send(kafka: KafkaConnection, plan: TopicPlan, user: bytes, items: list[str] | None, partition: int) -> None:
    producer = KafkaProducer(**kafka.kafka_python())
    now_ms = int(time.time() * 1000)
    for place, item in enumerate(items or [""]):
        value = {"user": user.decode(), "item": item, "timestamp": now_ms + place}
        encoded = None if items is None else json.dumps(value).encode()
        producer.send(plan.interactions, encoded, key=user, partition=partition).get(timeout=10)
    producer.close()


def compact(kafka: KafkaConnection, plan: TopicPlan, topics: list[str]) -> None:
    """Make the cleaner work now, and wait until it removed what newer records replace."""
    quick = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "100"}
    with admin_client(kafka) as admin:
        for topic in topics:
            change = ConfigResource(ConfigResourceType.TOPIC, topic, quick)
            admin.alter_configs([change])  # type: ignore[attr-defined]  # not in the stubs: Freshet does not call it
    producer = KafkaProducer(**kafka.kafka_python())

    def cleaned() -> bool:
        for topic in topics:  # a new record closes the segment before it
            for partition in range(plan.partitions):
                producer.send(topic, None, key=b"roll", partition=partition)
        producer.flush()
        records = (record for topic in topics for record in read_all(kafka, topic))
        return not any(record.key == GONE and record.value is None for record in records)

    until(cleaned, "compaction")
    producer.close()


def stored_users(folder: Path) -> set[bytes]:
    """Users of whom any store below a folder holds more than the time of forgetting."""
    found = set()
    for path in (*folder.glob("*/histories/*"), *folder.glob("trainer/view/*"), folder / "scorer" / "lists"):
        database = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
        for key, value in database.items():
            found |= {user for user in (GONE, STAYS) if key.endswith(user) and b"tea" in value}
        database.close()
    return found


def test_nothing_of_a_forgotten_user_is_left(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> None:
    with processes(kafka, topics, tmp_path / "before"):
        for partition in range(topics.partitions):  # a client that hashes otherwise wrote half of it elsewhere
            send(kafka, topics, GONE, [f"secret{partition}", "tea"], partition)
        send(kafka, topics, STAYS, ["tea", "cup"], 0)
        until(lambda: {GONE, STAYS} <= last_values(kafka, topics.recommendations).keys(), "both lists")
    plan = replace(topics, partitions=3)
    repartition(kafka, plan, 200)
    with processes(kafka, plan, tmp_path / "after"):
        until(lambda: {GONE, STAYS} <= last_values(kafka, plan.recommendations).keys(), "both lists again")
        send(kafka, plan, GONE, None, 2)
        until(lambda: GONE not in last_values(kafka, plan.recommendations), "the deletion of the list")
        time.sleep(8)  # the trainer's view follows
    compact(kafka, plan, [plan.histories, plan.recommendations])
    for topic in (plan.histories, plan.recommendations):
        left = [record.value for record in read_all(kafka, topic) if record.key == GONE and record.value is not None]
        assert not any(b"secret" in value or b"tea" in value for value in left)
    assert stored_users(tmp_path / "after") == {STAYS}
