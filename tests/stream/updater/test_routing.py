"""One user, one history, whatever hash the producers use."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.partitioner.default import murmur2

from state import codec
from state.history import Entry
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.demo.audit import changelog_histories, differences, reference_merge, stored_histories
from stream.updater.config import UpdaterConfig
from stream.updater.routing import sampled_misplaced
from stream.wire.partitioning import home_of
from stream.wire.records import Refresh
from stream.wire.topics import TopicPlan
from tests.support.updating import applied, interaction, produce, read_all, rejected, running, until

NOW = 1_700_000_000_000


class Place:
    def __init__(self, key: bytes | None, partition: int, offset: int) -> None:
        self.key, self.partition, self.offset = key, partition, offset
        self.topic, self.timestamp = "interactions", NOW
        self.value: bytes | None = None
        self.headers: Sequence[tuple[str, bytes]] = ()


def test_home_is_where_java_clients_put_a_key() -> None:
    for n in range(200):
        assert home_of(b"user%d" % n, 8) == (murmur2(b"user%d" % n) & 0x7FFFFFFF) % 8


def test_every_sixteenth_record_is_looked_at() -> None:
    at_home = home_of(b"u", 2)
    away = [Place(b"u", 1 - at_home, offset) for offset in range(3, 67)]
    assert sampled_misplaced(away, 2) == 4
    assert sampled_misplaced([Place(b"u", at_home, 0), Place(None, 0, 16)], 2) == 0


def test_an_unknown_way_of_repartitioning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'sometimes'"):
        UpdaterConfig(tmp_path, repartition="sometimes")  # type: ignore[arg-type]


def by_librdkafka(kafka: KafkaConnection, plan: TopicPlan, records: list[tuple[bytes, bytes | None]]) -> None:
    """With its default partitioner, CRC32 of the key."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "linger.ms": 5})
    for key, value in records:
        producer.produce(plan.interactions, key=key, value=value)
    assert producer.flush(30) == 0


@pytest.mark.kafka
def test_without_routing_misplaced_records_are_counted(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> None:
    with running(UpdaterConfig(tmp_path, checkpoint_seconds=0.2), kafka, plan) as metrics:
        by_librdkafka(kafka, plan, [interaction(f"u{n}", "i", NOW) for n in range(640)])
        until(lambda: applied(metrics) == 640, "taking all events in")
        assert 5 <= metrics.foreign_partition._value.get() <= 80


@pytest.mark.kafka
def test_users_of_two_hashes_have_one_history_in_their_own_partition(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    config = UpdaterConfig(tmp_path, history_items=10, checkpoint_seconds=0.2, repartition="strict")
    events = [(f"u{n % 20}", Entry(NOW + (n * 37) % 101, f"i{n % 23}", 1.0)) for n in range(400)]
    records = [interaction(user, e.item, e.time_ms) for user, e in events]
    expected = reference_merge(events, limit=10)
    with running(config, kafka, plan):
        by_librdkafka(kafka, plan, [*records[::2], (b"u3", b"{")])
        produce(kafka, plan, [*records[1::2], (None, records[0][1])])
        until(lambda: changelog_histories(kafka, plan.histories) == expected, "one history per user")
    with running(config, kafka, plan) as metrics:  # another life reads nothing twice and goes on
        events.append(("u3", Entry(NOW + 500, "last", 1.0)))
        by_librdkafka(kafka, plan, [interaction("u3", "last", NOW + 500)])
        expected = reference_merge(events, limit=10)
        until(lambda: changelog_histories(kafka, plan.histories) == expected, "the last event")
        assert applied(metrics) == 1
    admin = admin_client(kafka)
    assert differences(stored_histories(admin, plan.histories, [tmp_path / "histories"]), expected) == []
    admin.close()
    histories = read_all(kafka, plan.histories)
    assert {record.key for record in histories if record.partition != home_of(record.key, 2)} == set()
    routed = read_all(kafka, plan.routed)
    assert routed and all(record.partition == home_of(record.key, 2) for record in routed)
    letters = read_all(kafka, plan.dead_letters)
    assert sorted(letter.value for letter in letters) == sorted([b"{", records[0][1]])


@pytest.mark.kafka
def test_a_routed_wish_to_be_forgotten_keeps_its_time(kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path) -> None:
    """It covers what came before it and not what comes after it, however late it reaches the user's partition."""
    user = next(user for user in (f"v{n}" for n in range(100)) if home_of(user.encode(), 2) == 0)
    with running(UpdaterConfig(tmp_path, checkpoint_seconds=0.2, repartition="strict"), kafka, plan):
        produce(kafka, plan, [interaction(user, "old", NOW)])
        producer = KafkaProducer(**kafka.kafka_python())
        producer.send(plan.interactions, key=user.encode(), value=None, partition=1).get(timeout=10)
        producer.close()
        until(lambda: changelog_histories(kafka, plan.histories).get(user, None) is not None, "a history")
        until(lambda: changelog_histories(kafka, plan.histories)[user].forgotten_ms > NOW, "forgetting")
    (misplaced,) = [r for r in read_all(kafka, plan.interactions) if r.value is None]
    assert changelog_histories(kafka, plan.histories)[user].items == ()
    assert changelog_histories(kafka, plan.histories)[user].forgotten_ms == misplaced.timestamp


@pytest.mark.kafka
def test_what_is_too_old_is_a_dead_letter_where_it_arrived(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    with running(UpdaterConfig(tmp_path, checkpoint_seconds=0.2, repartition="strict"), kafka, plan) as metrics:
        value = json.dumps({"user": "u", "item": "i", "timestamp": 1}).encode()
        producer = KafkaProducer(**kafka.kafka_python())
        producer.send(plan.interactions, value, key=b"u", partition=1 - home_of(b"u", 2)).get(timeout=10)
        producer.close()
        until(lambda: rejected(metrics) == 1, "the dead letter")
    assert read_all(kafka, plan.routed) == []
    assert dict(read_all(kafka, plan.dead_letters)[0].headers)["topic"].decode() == plan.interactions


def test_a_user_is_forgotten_in_every_partition(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> None:
    """Two clients that hash differently left half a history in each partition; one wish erases both."""
    with running(UpdaterConfig(tmp_path, worker="w"), kafka, topics) as metrics:
        producer = KafkaProducer(**kafka.kafka_python())
        for number in range(topics.partitions):
            key, value = interaction("ann", f"i{number}", NOW)
            producer.send(topics.interactions, value, key=key, partition=number)
        producer.flush()
        until(lambda: applied(metrics) == topics.partitions, "merging both halves")
        producer.send(topics.interactions, None, key=b"ann", partition=0)
        producer.flush()
        until(lambda: len(read_all(kafka, topics.routed)) == 1, "the wish on its way to the other partition")
        until(lambda: [*map(_reason, read_all(kafka, topics.refreshes))].count("forget") == 2, "forgetting in both")
        assert applied(metrics) == topics.partitions + 1  # the wish counts once
        producer.close()
    last = {record.partition: record.value for record in read_all(kafka, topics.histories) if record.key == b"ann"}
    assert {number: codec.decode(value).items for number, value in last.items() if value} == {0: (), 1: ()}
    forgets = [r for r in read_all(kafka, topics.refreshes) if Refresh.decode(r.value).reason == "forget"]
    assert sorted(record.partition for record in forgets) == [0, 1]
    assert len(read_all(kafka, topics.routed)) == 1  # it is sent on once, and not again by those who get it


def _reason(record: ConsumerRecord) -> str:
    assert record.value is not None
    return Refresh.decode(record.value).reason
