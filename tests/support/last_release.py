"""Topics and folders as release 0.1.0 left them, brought to a Kafka of today.

The files lie in `release_0_1_0`, where `record.py` made them. Records come to the same offsets again, committed markers
between them included, so that the stores' offsets fit. Only what names the old Kafka is replaced: the id of a topic in
the identity of a store, and the folder in the address of a model.
"""

import json
import tarfile
from base64 import b64decode
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import rocksdict
from kafka import KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from stream.clients.admin import admin_client, ask_coordinator, topic_identity
from stream.clients.connection import KafkaConnection
from stream.wire.topics import TopicPlan, ensure_topics

__all__ = ["HISTORY_ITEMS", "PARTITIONS", "bring_back", "last_event_ms"]

FIXTURE = Path(__file__).parent / "release_0_1_0"
PARTITIONS, HISTORY_ITEMS = 2, 8  # as they were then
_IDENTITY = b"\x00identity"


def bring_back(kafka: KafkaConnection, plan: TopicPlan, folder: Path, unanswered: int = 0) -> dict[str, Any]:
    """Topics below the plan's prefix and folders below `folder`; returns what was recorded. The scorer's group has
    `unanswered` refreshes of each partition before it."""
    recorded: dict[str, Any] = json.loads((FIXTURE / "topics.json").read_text())
    ensure_topics(kafka, plan)
    for topic, partitions in recorded["topics"].items():
        for number, partition in enumerate(partitions):
            _write(kafka, plan.prefix + topic, number, partition, (recorded["folder"], str(folder)))
    with tarfile.open(FIXTURE / "state.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    (folder / "state").rename(folder / "old")
    for path in (folder / "old").iterdir():
        path.rename(folder / path.name)
    with admin_client(kafka) as admin:
        for group, committed in recorded["groups"].items():
            back = unanswered if group == "freshet-scorer" else 0
            offsets = {
                TopicPartition(plan.prefix + topic, number): OffsetAndMetadata(offset - back, "", -1)
                for topic, number, offset in committed
            }
            ask_coordinator(partial(admin.alter_group_offsets, plan.prefix + group, offsets))
        topic_id = topic_identity(admin, plan.histories)["topic_id"]
    for store in [*(folder / "updater" / "histories").iterdir(), *(folder / "trainer" / "view").iterdir()]:
        _rename(store, topic_id)
    return recorded


def _write(kafka: KafkaConnection, topic: str, number: int, partition: dict[str, Any], moved: tuple[str, str]) -> None:
    for run, marked in _runs(partition):
        settings: dict[str, Any] = {"transactional_id": f"{topic}-{number}"} if marked else {}
        producer = KafkaProducer(**kafka.kafka_python(), **settings, linger_ms=5)
        if marked:
            producer.init_transactions()
            producer.begin_transaction()
        futures = []
        for _, timestamp_ms, key, value, headers in run:
            given = None if value is None else b64decode(value).replace(moved[0].encode(), moved[1].encode())
            pairs = [(name, b64decode(header)) for name, header in headers]
            known = None if key is None else b64decode(key)
            futures.append(producer.send(topic, given, known, pairs, number, timestamp_ms))
        if marked:
            producer.commit_transaction()
        producer.close()
        assert [future.get(10).offset for future in futures] == [row[0] for row in run]


def _runs(partition: dict[str, Any]) -> Iterator[tuple[list[Any], bool]]:
    """Records that follow upon each other, and whether a marker comes after them."""
    rows, run = partition["records"], []
    following = [*(row[0] for row in rows[1:]), partition["end"]][: len(rows)]
    for row, after in zip(rows, following, strict=True):
        run.append(row)
        if after > row[0] + 1:
            assert after == row[0] + 2
            yield run, True
            run = []
    if run:
        yield run, False


def _rename(path: Path, topic_id: str) -> None:
    store = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    identity = json.loads(store[_IDENTITY])
    store[_IDENTITY] = json.dumps(identity | {"topic_id": topic_id}).encode()
    store.close()


def last_event_ms(recorded: dict[str, Any]) -> int:
    rows = [row for partition in recorded["topics"]["interactions"] for row in partition["records"]]
    return max(json.loads(b64decode(row[3]))["timestamp"] for row in rows)
