"""Interactions become durable histories and refreshes, exactly, whatever arrives."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from prometheus_client import CollectorRegistry

from ops.connection import KafkaConnection
from ops.metrics import UpdaterMetrics
from state import codec
from state.history import Entry
from stream.audit import changelog_histories, differences, reference_merge, stored_histories
from stream.records import Refresh
from stream.topics import TopicPlan
from stream.updater import Updater, UpdaterConfig

pytestmark = pytest.mark.kafka
NOW = 1_700_000_000_000


@contextmanager
def running(config: UpdaterConfig, kafka: KafkaConnection, plan: TopicPlan) -> Iterator[UpdaterMetrics]:
    """An updater in a thread; leaving the block stops it the way SIGTERM does."""
    metrics = UpdaterMetrics(CollectorRegistry())
    updater = Updater(config, kafka, plan, metrics)
    stop, failure = threading.Event(), []

    def work() -> None:
        try:
            updater.run(stop)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield metrics
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
    if failure:
        raise failure[0]


def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


def produce(kafka: KafkaConnection, plan: TopicPlan, records: list[tuple[bytes | None, bytes | None]]) -> None:
    producer = KafkaProducer(**kafka.kafka_python(), linger_ms=5, max_request_size=16 * 1024 * 1024)
    futures = [producer.send(plan.interactions, value, key=key) for key, value in records]
    producer.flush()
    for future in futures:
        future.get(timeout=10)
    producer.close()


def interaction(user: str, item: str, timestamp: int) -> tuple[bytes, bytes]:
    return user.encode(), json.dumps({"user": user, "item": item, "timestamp": timestamp}).encode()


def read_all(kafka: KafkaConnection, topic: str) -> list:
    """Every committed record of a topic."""
    consumer = KafkaConsumer(**kafka.kafka_python(), isolation_level="read_committed", auto_offset_reset="earliest")
    partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    records: list = []
    while any(consumer.position(tp) < end for tp, end in ends.items()):
        for batch in consumer.poll(timeout_ms=200).values():
            records += batch
    consumer.close()
    return records


def applied(metrics: UpdaterMetrics) -> float:
    return sum(metrics.events_applied[r]._value.get() for r in ("applied", "duplicate", "late"))


def rejected(metrics: UpdaterMetrics) -> float:
    reasons = ("decode", "schema", "timestamp", "oversize", "handler")
    return sum(metrics.dead_letters[r]._value.get() for r in reasons)


def test_histories_are_the_merge_of_all_events_and_every_change_is_refreshed(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    events = [(f"u{n % 7}", Entry(NOW + (n * 37) % 101, f"i{n % 23}", 1.0)) for n in range(300)]
    config = UpdaterConfig(tmp_path, history_items=10, checkpoint_seconds=0.3)
    with running(config, kafka, plan) as metrics:
        produce(kafka, plan, [interaction(user, e.item, e.time_ms) for user, e in events])
        until(lambda: applied(metrics) == len(events), "taking all events in")
    expected = reference_merge(events, limit=10)
    assert differences(changelog_histories(kafka, plan.histories), expected) == []
    admin = KafkaAdminClient(**kafka.kafka_python())
    assert differences(stored_histories(admin, plan.histories, [tmp_path / "histories"]), expected) == []
    admin.close()
    refreshed = {}
    for record in read_all(kafka, plan.refreshes):
        refresh = Refresh.decode(record.value)
        assert refresh.reason == "event" and refresh.new
        refreshed[record.key.decode()] = codec.decode(refresh.history)
    assert refreshed == expected


def test_every_bad_record_is_a_dead_letter_and_the_stream_goes_on(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    large = {"user": "u", "item": "i", "timestamp": NOW, "padding": "x" * 5_000_000}
    bad = {
        "broken JSON": (b"u", b'{"user": "u", '),
        "a missing field": (b"u", b'{"user": "u", "item": "i"}'),
        "a wrong type": (b"u", b'{"user": "u", "item": 7, "timestamp": 1700000000000}'),
        "an absurd timestamp": interaction("u", "i", 1),
        "a 5 MB record": (b"u", json.dumps(large).encode()),
        "a null key": (None, interaction("u", "i", NOW)[1]),
    }
    with running(UpdaterConfig(tmp_path, checkpoint_seconds=0.2), kafka, plan) as metrics:
        produce(kafka, plan, [interaction("u", "before", NOW), *bad.values(), interaction("u", "after", NOW + 1)])
        until(lambda: applied(metrics) + rejected(metrics) == len(bad) + 2, "taking all records in")
    assert changelog_histories(kafka, plan.histories)["u"].items == ("after", "before")
    letters = read_all(kafka, plan.dead_letters)
    sent = {(key, value) for key, value in bad.values()}
    assert {(letter.key, letter.value) for letter in letters} == sent
    assert len(letters) == len(bad)
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["topic"].decode() == plan.interactions
        assert headers["reason"] in (b"decode", b"schema", b"timestamp", b"oversize")
        assert headers["detail"] and headers["offset"].isdigit() and headers["partition"] in (b"0", b"1")


def test_a_restart_continues_and_a_replay_changes_nothing(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    config = UpdaterConfig(tmp_path, checkpoint_seconds=0.2)
    first = [interaction(f"u{n}", "a", NOW + n) for n in range(20)]
    with running(config, kafka, plan) as metrics:
        produce(kafka, plan, first)
        until(lambda: applied(metrics) == 20, "the first events")
    before = changelog_histories(kafka, plan.histories)
    with running(config, kafka, plan) as metrics:
        produce(kafka, plan, [*first, interaction("u0", "b", NOW + 100)])
        until(lambda: applied(metrics) == 21, "the second events")
        assert metrics.events_applied["duplicate"]._value.get() == 20
    after = changelog_histories(kafka, plan.histories)
    assert after["u0"].items == ("b", "a")
    assert {u: h for u, h in after.items() if u != "u0"} == {u: h for u, h in before.items() if u != "u0"}


@pytest.mark.parametrize("damage", ["deleted", "emptied manifest", "another topic's"])
def test_a_lost_store_is_rebuilt_from_the_changelog(
    damage: str, kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    config = UpdaterConfig(tmp_path, checkpoint_seconds=0.2)
    with running(config, kafka, plan) as metrics:
        produce(kafka, plan, [interaction(f"u{n}", "a", NOW + n) for n in range(20)])
        until(lambda: applied(metrics) == 20, "the first events")
    for number in ("0", "1"):
        store = tmp_path / "histories" / number
        if damage == "deleted":
            for file in store.iterdir():
                file.unlink()
        elif damage == "emptied manifest":
            for manifest in store.glob("MANIFEST-*"):
                manifest.write_bytes(b"")
    if damage == "another topic's":
        stores = tmp_path / "histories"
        (stores / "0").rename(stores / "x")
        (stores / "1").rename(stores / "0")
        (stores / "x").rename(stores / "1")
    with running(config, kafka, plan) as metrics:
        produce(kafka, plan, [interaction(f"u{n}", "b", NOW + 100 + n) for n in range(20)])
        until(lambda: applied(metrics) == 20, "the second events")
    events = [(f"u{n}", Entry(NOW + n, "a", 1.0)) for n in range(20)]
    events += [(f"u{n}", Entry(NOW + 100 + n, "b", 1.0)) for n in range(20)]
    expected = reference_merge(events, 200)
    assert differences(changelog_histories(kafka, plan.histories), expected) == []
    admin = KafkaAdminClient(**kafka.kafka_python())
    assert differences(stored_histories(admin, plan.histories, [tmp_path / "histories"]), expected) == []
    admin.close()


def test_a_null_value_forgets_the_user_also_when_old_events_are_replayed(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    with running(UpdaterConfig(tmp_path, checkpoint_seconds=0.2), kafka, plan) as metrics:
        produce(kafka, plan, [interaction("u", "a", NOW), interaction("v", "a", NOW), (b"u", None)])
        until(lambda: applied(metrics) == 3, "forgetting")
        produce(kafka, plan, [interaction("u", "a", NOW)])
        until(lambda: applied(metrics) == 4, "the replay")
    histories = changelog_histories(kafka, plan.histories)
    assert histories["u"].items == () and histories["u"].forgotten_ms > NOW
    assert histories["v"].items == ("a",)
    reasons = [Refresh.decode(r.value).reason for r in read_all(kafka, plan.refreshes) if r.key == b"u"]
    assert reasons[-1] == "forget"
