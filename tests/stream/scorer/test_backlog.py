"""A scorer that finds a backlog answers all of it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka import KafkaProducer

from state import codec
from state.history import EMPTY, Entry, merge_entries
from stream.clients.connection import KafkaConnection
from stream.demo.audit import last_values
from stream.wire.records import NewInteraction, Refresh
from stream.wire.topics import TopicPlan

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

NOW = 1_700_000_000_000
USERS = 3_000


def test_every_user_of_a_backlog_gets_a_list(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> None:
    """Its records arrive before the last lists of their partitions are known."""
    history = codec.encode(merge_entries(EMPTY, [Entry(NOW, "i1", 1.0)], 200, 0))
    value = Refresh("event", NOW, (NewInteraction("i1", NOW, False),), history).encode()
    producer = KafkaProducer(**kafka.kafka_python(), linger_ms=5)
    for n in range(USERS):
        producer.send(topics.refreshes, value, key=f"u{n}".encode(), partition=n % topics.partitions)
    producer.close()
    command = [
        *(sys.executable, "-m", "stream.cli", "scorer", "--prefix", topics.prefix, "--device", "cpu"),
        *("--partitions", str(topics.partitions), "--state-dir", str(tmp_path), "--metrics-port", "0"),
    ]
    environment = {**os.environ, "FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as scorer:
        try:
            deadline = time.monotonic() + 120
            while len(listed := last_values(kafka, topics.recommendations)) < USERS:
                assert time.monotonic() < deadline, f"{len(listed)} of {USERS} users have a list"
                time.sleep(0.5)
        finally:
            scorer.kill()
    assert all(json.loads(value)["as_of"] == NOW for value in listed.values())
