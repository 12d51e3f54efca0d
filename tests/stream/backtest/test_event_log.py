"""Events in the order they happened, whole moments at a time, from a file as from the topic."""

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer

from stream.backtest.event_log import EventLog, batches, log_of_file, log_of_topic
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.sources.log.options import LogError, LogOptions
from stream.wire.records import Limits

EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 9), st.integers(0, 1)), min_size=1)


def log_of(rows: list[tuple[int, int, int, int]]) -> EventLog:
    users, items, times, kinds = (np.array(column) for column in zip(*rows, strict=True))
    ids = [f"u{n}" for n in range(4)], [f"i{n}" for n in range(6)], ["", "buy"]
    return EventLog.ordered("log", ids, (users, items, times, np.ones(len(users)), kinds))


@given(EVENTS, st.integers(1, 5))
def test_batches_hold_every_event_once_and_tear_no_moment_apart(
    rows: list[tuple[int, int, int, int]], size: int
) -> None:
    log = log_of(rows)
    assert len(log) == len(set(rows)) and (np.diff(log.times_ms) >= 0).all()
    spans = list(batches(log, size))
    assert [first for first, _ in spans] == [0, *(end for _, end in spans[:-1])] and spans[-1][1] == len(log)
    moments = [{(int(log.users[n]), int(log.times_ms[n])) for n in range(*span)} for span in spans]
    for before, after in pairwise(moments):
        assert not before & after
    for first, _ in spans:  # taken up at the end of any batch, the rest is the same
        assert list(batches(log, size, first)) == [span for span in spans if span[0] >= first]


@given(EVENTS)
def test_equal_logs_have_equal_fingerprints(rows: list[tuple[int, int, int, int]]) -> None:
    log = log_of(rows)
    assert log_of(rows).fingerprint() == log.fingerprint()
    assert log_of([*rows, (0, 0, 77, 0)]).fingerprint() != log.fingerprint()


def test_a_file_is_cut_to_kinds_and_ratings(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "user,item,timestamp,rating,event,weight\n"
        "u1,a,1700000001,5,view,3\nu1,b,1700000002,1,buy,2\nu2,a,1700000003,5,buy,4\nu2,,1700000004,5,buy,1\n"
    )
    options = LogOptions(min_rating=3.0, kinds=("buy",))
    log, taken = log_of_file(path, options)
    assert [log.interaction(n).item for n in range(len(log))] == ["a"] and log.interaction(0).event == "buy"
    assert log.interaction(0).weight == 1
    assert log_of_file(path, options, weighted=True)[0].weights[0] == 4
    assert taken
    with pytest.raises(LogError):
        log_of_file(path, LogOptions(kinds=("wish",)))
    with pytest.raises(LogError):
        log_of_file(path, LogOptions(min_rating=9.0))


@pytest.mark.kafka
def test_the_topic_gives_what_an_updater_would_take(kafka: KafkaConnection, prefix: str) -> None:
    topic, start = prefix + "interactions", 1_700_000_000_000
    admin = admin_client(kafka)
    admin.create_topics({topic: {"num_partitions": 3, "replication_factor": 1}}, wait_for_metadata=True)
    admin.close()
    producer = KafkaProducer(**kafka.kafka_python())

    def send(user: str, value: dict[str, object] | None) -> None:
        encoded = None if value is None else msgspec.json.encode({"user": user, **value})
        producer.send(topic, encoded, key=user.encode()).get(timeout=20)

    for n in range(20):
        send(f"u{n % 4}", {"item": f"i{n}", "timestamp": start + n, "event": "buy" if n % 2 else ""})
    send("u1", {"item": "i", "timestamp": "yesterday"})
    send("u3", None)
    producer.close()
    log = log_of_topic(kafka, topic, Limits())
    assert log.times_ms.tolist() == [start + n for n in range(20) if n % 4 != 3]
    assert log.interaction(1).user == "u1" and log.interaction(1).event == "buy"
    assert "1 refused" in log.left_out and "5 events of forgotten users" in log.left_out
    with pytest.raises(LogError, match="no topic"):
        log_of_topic(kafka, prefix + "nothing", Limits())
