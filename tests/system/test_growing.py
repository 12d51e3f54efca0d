"""A topic that is grown under load: refused at once, by name; after `freshet repartition` everybody is whole."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from kafka import KafkaProducer

from state.history import EMPTY, Entry, History, merge_entries
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.cluster.repartition import RepartitionError, repartition
from stream.demo.audit import changelog_histories, differences
from stream.updater.config import UpdaterConfig
from stream.wire.partitioning import home_of
from stream.wire.topics import TopicError, TopicPlan
from tests.support.updating import applied, interaction, read_all, running, until

pytestmark = pytest.mark.kafka
NOW = 1_700_000_000_000
LIMIT = 200
USERS = 60


class Load(threading.Thread):
    """A producer that learns of new partitions while it writes, as any producer does."""

    def __init__(self, kafka: KafkaConnection, topic: str) -> None:
        super().__init__(daemon=True)
        self._producer = KafkaProducer(**kafka.kafka_python() | {"metadata_max_age_ms": 2_000})
        self._topic, self._stop_asked, self.events = topic, threading.Event(), list[tuple[str, Entry]]()

    def run(self) -> None:
        while not self._stop_asked.wait(0.005):
            number = len(self.events)
            user, entry = f"u{number % USERS}", Entry(NOW + number, f"i{number % 37}", 1.0)
            key, value = interaction(user, entry.item, entry.time_ms)
            self._producer.send(self._topic, value, key=key)
            self.events.append((user, entry))

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()
        self._producer.flush()
        self._producer.close()

    def wanted(self) -> dict[str, History]:
        found: dict[str, History] = {}
        for user, entry in self.events:
            found[user] = merge_entries(found.get(user, EMPTY), [entry], LIMIT)
        return found


def test_nobody_is_split_or_lost(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> None:
    load = Load(kafka, topics.interactions)
    load.start()
    config = UpdaterConfig(tmp_path / "before", worker="w", history_items=LIMIT, session_seconds=6.0)
    with pytest.raises(TopicError, match="freshet repartition"), running(config, kafka, topics) as metrics:
        until(lambda: applied(metrics) > 200, "merging under load")
        with admin_client(kafka) as admin:
            admin.create_partitions({topics.interactions: 5})
        grown_at = time.monotonic()
        until(_ended, "the refusal", 15)
        refused_after = time.monotonic() - grown_at
    assert refused_after < 10
    plan = replace(topics, partitions=5)
    until(lambda: _moved(kafka, plan), "the moves, once the session of the updater that failed is over", 60)
    config = replace(config, state_dir=tmp_path / "after")
    with running(config, kafka, plan) as metrics:
        until(lambda: applied(metrics) > 0, "reading on")
        time.sleep(4)  # producers learn of the new partitions meanwhile, and some events come late to the old ones
        load.stop()
        wanted = load.wanted()
        until(lambda: differences(changelog_histories(kafka, plan.histories), wanted) == [], "every history", 60)
    places: dict[bytes, dict[int, bytes | None]] = {}
    for record in read_all(kafka, plan.histories):
        places.setdefault(record.key, {})[record.partition] = record.value
    for user, values in places.items():
        held = [number for number, value in values.items() if value is not None]
        assert held == [home_of(user, 5)]


def _moved(kafka: KafkaConnection, plan: TopicPlan) -> bool:
    try:
        repartition(kafka, plan, LIMIT)
    except RepartitionError:  # a worker with a name keeps its place until its session is over
        return False
    return True


def _ended() -> bool:
    return not any(thread.name.startswith("updater-under-test") for thread in threading.enumerate())
