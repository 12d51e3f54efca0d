"""Three brokers that replicate: one of them dies and returns, leaders move, copies fall below the minimum.

Nothing is lost, nothing is wrong afterwards, and no list is missing.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from ops.local.cluster import LocalCluster
from state.history import EMPTY, Entry, History, merge_entries
from stream.clients.connection import KafkaConnection
from stream.demo.audit import changelog_histories, differences, last_values
from stream.demo.latency_probe import Observer
from stream.local.pipeline import free_port
from stream.wire.topics import TopicPlan, ensure_topics

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
USERS, PER_SECOND, LIMIT = 200, 500, 200


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as brokers:
        yield brokers


@contextmanager
def process(kafka: KafkaConnection, plan: TopicPlan, kind: str, folder: Path) -> Iterator[Path]:
    """`freshet updater` or `scorer`, started again when it ends as a supervisor would; yields its log."""
    log, ended = folder / f"{kind}.log", threading.Event()
    options = ["--prefix", plan.prefix, "--partitions", str(plan.partitions), "--replication-factor", "3"]
    options += ["--state-dir", str(folder / kind), "--metrics-port", str(free_port()), "--session-seconds", "6"]
    options += ["--worker", "w1"] if kind == "updater" else ["--device", "cpu"]
    environment = {**os.environ, "FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "OMP_NUM_THREADS": "1"}
    running: list[subprocess.Popen[bytes]] = []

    def keep() -> None:
        while not ended.is_set():
            with log.open("ab") as output:
                child = subprocess.Popen(
                    [sys.executable, "-m", "stream.cli", kind, *options],
                    cwd=ROOT,
                    env=environment,
                    stdout=output,
                    stderr=output,
                )
            running.append(child)
            child.wait()
            ended.wait(0.5)

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield log
    finally:
        ended.set()
        running[-1].terminate()
        running[-1].wait(30)
        keeper.join(10)


class Load(threading.Thread):
    """Events at a steady rate, each remembered only once the brokers have it."""

    def __init__(self, kafka: KafkaConnection, topic: str, probe: Observer) -> None:
        super().__init__(daemon=True)
        self._producer = KafkaProducer(
            **kafka.kafka_python(), acks="all", linger_ms=2, delivery_timeout_ms=120_000, max_block_ms=60_000
        )
        self._topic, self._probe, self._enough = topic, probe, threading.Event()
        self.events: list[tuple[str, Entry]] = []
        self.failed: list[Exception] = []

    def run(self) -> None:
        began = time.monotonic()
        futures: list[Any] = []  # the stubs have no `exception`
        while not self._enough.is_set():
            number = len(self.events)
            time.sleep(max(began + number / PER_SECOND - time.monotonic(), 0))
            user, entry = f"u{number * 7 % USERS}", Entry(int(time.time() * 1000), f"i{number * 13 % 997}", 1.0)
            value = json.dumps({"user": user, "item": entry.item, "timestamp": entry.time_ms}).encode()
            futures.append(self._producer.send(self._topic, value, key=user.encode()))
            self.events.append((user, entry))
            self._probe.sent(user, entry.time_ms)
        self._producer.flush()
        self.failed += [future.exception for future in futures if future.failed()]
        self._producer.close()

    def stop(self) -> None:
        self._enough.set()
        self.join(180)

    def wanted(self) -> dict[str, History]:
        by_user: dict[str, list[Entry]] = {}
        for user, entry in self.events:
            by_user.setdefault(user, []).append(entry)
        return {user: merge_entries(EMPTY, entries, LIMIT) for user, entries in by_user.items()}


def until(
    condition: Callable[[], bool], what: str, seconds: float = 120.0, instead: Callable[[], object] = lambda: ""
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen: {instead()}"
        time.sleep(0.5)


def in_sync(kafka: KafkaConnection, plan: TopicPlan) -> bool:
    admin = KafkaAdminClient(**kafka.kafka_python())
    try:
        topics = admin.describe_topics([spec.name for spec in plan.specs()])
        return all(len(p["isr_nodes"]) == 3 for topic in topics for p in topic["partitions"])
    finally:
        admin.close()


def newest_lists(kafka: KafkaConnection, topic: str) -> dict[str, int]:
    return {user.decode(): json.loads(value)["as_of"] for user, value in last_values(kafka, topic).items()}


def check(kafka: KafkaConnection, plan: TopicPlan, load: Load) -> None:
    """Every event in every history, and everybody's list knows the newest."""
    assert load.failed == []
    wanted = load.wanted()
    found: list[str] = []

    def merged() -> bool:
        found[:] = differences(changelog_histories(kafka, plan.histories), wanted)
        return not found

    until(merged, f"the reference merge of {len(load.events)} events", 180, lambda: found[:5])
    expected = {user: history.newest_ms for user, history in wanted.items()}
    until(lambda: newest_lists(kafka, plan.recommendations) == expected, "everybody's newest list")


def test_each_broker_dies_in_turn_under_load(
    cluster: LocalCluster, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka = KafkaConnection(cluster.bootstrap_servers)
    plan = TopicPlan(prefix, partitions=4, replication_factor=3)
    ensure_topics(kafka, plan)
    probe = Observer(kafka, plan.recommendations)
    load = Load(kafka, plan.interactions, probe)
    with process(kafka, plan, "updater", tmp_path), process(kafka, plan, "scorer", tmp_path):
        load.start()
        until(lambda: len(probe.latencies) > 1000, "lists under load")
        steady = probe.quantiles([0.5, 0.99], last=1000)
        for broker in cluster.brokers:
            broker.kill()
            time.sleep(6)
            broker.start()
            until(lambda: in_sync(kafka, plan), "all copies in sync again")
        load.stop()
        check(kafka, plan, load)
    faulty = probe.quantiles([0.5, 0.99, 1.0])
    probe.close()
    with capsys.disabled():
        print(
            f"\nthree brokers, each killed in turn, {len(load.events):,} events at {PER_SECOND}/s: event to list "
            f"p50 {steady[0]:.3f} s, p99 {steady[1]:.3f} s before; p50 {faulty[0]:.3f} s, p99 {faulty[1]:.1f} s, "
            f"longest {faulty[2]:.1f} s over all"
        )


def test_below_the_minimum_of_copies_events_wait_and_none_is_lost(
    cluster: LocalCluster, prefix: str, tmp_path: Path
) -> None:
    """With one broker of three left nothing may count as written; with two again, all of it is."""
    kafka = KafkaConnection(cluster.bootstrap_servers)
    plan = TopicPlan(prefix, partitions=2, replication_factor=3)
    ensure_topics(kafka, plan)
    assert plan.insync == "2"
    probe = Observer(kafka, plan.recommendations)
    load = Load(kafka, plan.interactions, probe)
    with process(kafka, plan, "updater", tmp_path), process(kafka, plan, "scorer", tmp_path):
        load.start()
        until(lambda: len(probe.latencies) > 500, "lists under load")
        cluster.brokers[0].kill()
        cluster.brokers[1].kill()
        time.sleep(8)
        restarts = [threading.Thread(target=broker.start) for broker in cluster.brokers[:2]]
        for thread in restarts:
            thread.start()
        for thread in restarts:
            thread.join()
        until(lambda: in_sync(kafka, plan), "all copies in sync again")
        load.stop()
        check(kafka, plan, load)
    probe.close()
