"""Makes the fixture beside this file: topics and folders as release 0.1.0 left them.

    git archive 9affef374a48d9a0946da75785251a5a5040ea00 | tar x -C OLD
    python -m tests.support.release_0_1_0.record OLD

Its three workers take in events of 24 users, train a model and publish lists; they are stopped, and some more events
arrive that they do not read.
"""

import base64
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kafka import KafkaProducer, TopicPartition

from ops.local.broker import LocalBroker
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.partitioning import home_of

HERE = Path(__file__).parent
TOPICS = ("interactions", "interactions-routed", "histories", "refreshes", "recommendations", "models", "dead-letters")
GROUPS = ("freshet-updater", "freshet-scorer")
USERS, ITEMS, PARTITIONS = 24, 14, 2
BEGAN_MS = 1_764_000_000_000


def event(user: int, step: int) -> dict[str, Any]:
    """Users meet items in an order of their own; some events are late, and some items are met again."""
    late = 2 if step % 5 == 3 else 0
    time_ms = BEGAN_MS + 60_000 * (step - late) + user
    return {"user": f"u{user}", "item": f"i{(3 * step * (1 + user % 2) + user) % ITEMS}", "timestamp": time_ms}


def main(checkout: str) -> None:
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        connection = KafkaConnection(broker.bootstrap_servers)
        workers = [
            subprocess.Popen(
                [sys.executable, str(HERE / "worker.py"), kind, connection.bootstrap_servers, folder], cwd=checkout
            )
            for kind in ("updater", "scorer", "trainer")
        ]
        until(lambda: len(ends(connection)) >= 9, "topics")
        time.sleep(5)
        send(connection, range(10))
        until(lambda: ends(connection).get(TopicPartition("models", 0), 0), "a model")
        time.sleep(5)
        send(connection, range(10, 12))
        time.sleep(10)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(60)
        send(connection, range(12, 14))
        dump = {"folder": folder, "topics": records(connection), "groups": groups(connection)}
        (HERE / "topics.json").write_text(json.dumps(dump, separators=(",", ":")))
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:xz") as archive:
            archive.add(folder, "state", filter=lambda entry: None if entry.name.endswith(("/LOG", ".lock")) else entry)
        (HERE / "state.tar.xz").write_bytes(packed.getvalue())


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def ends(connection: KafkaConnection) -> dict[TopicPartition, int]:
    with TopicReader(connection) as reader:
        return dict(reader.ends([tp for topic in TOPICS for tp in reader.partitions(topic)]))


def send(connection: KafkaConnection, steps: range) -> None:
    producer = KafkaProducer(**connection.kafka_python(), linger_ms=20)
    for step in steps:
        for user in range(USERS):
            value = event(user, step)
            key = value["user"].encode()
            partition = home_of(key, PARTITIONS)
            producer.send("interactions", json.dumps(value).encode(), key=key, partition=partition)
    producer.close()


def text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def records(connection: KafkaConnection) -> dict[str, Any]:
    """By topic and partition: the end, and (offset, time, key, value, headers) of every record."""
    found: dict[str, Any] = {}
    with TopicReader(connection) as reader:
        for topic in TOPICS:
            for tp in reader.partitions(topic):
                reader.assign([tp])
                reader.to_beginning()
                rows = [
                    (
                        r.offset,
                        r.timestamp,
                        text(r.key),
                        text(r.value),
                        [(name, text(value)) for name, value in r.headers],
                    )
                    for r in reader.read_to_end()
                ]
                found.setdefault(topic, []).append({"end": reader.ends([tp])[tp], "records": rows})
    return found


def groups(connection: KafkaConnection) -> dict[str, Any]:
    with admin_client(connection) as admin:
        return {
            group: [(tp.topic, tp.partition, found.offset) for tp, found in offsets.items()]
            for group, offsets in admin.list_group_offsets(dict.fromkeys(GROUPS)).items()
        }


if __name__ == "__main__":
    main(sys.argv[1])
