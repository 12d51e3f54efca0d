"""A member of a group keeps its place, and reads what the brokers have now."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

import stream.clients.member
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.clients.member import poll_as_member, poll_fresh

SESSION_SECONDS = 6.0


@contextmanager
def topic(kafka: KafkaConnection, name: str, partitions: int) -> Iterator[KafkaAdminClient]:
    with admin_client(kafka) as admin:
        admin.create_topics([NewTopic(name, partitions, 1)])
        yield admin
        admin.delete_topics([name])


def poll_until(consumer: KafkaConsumer, partitions: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        poll_as_member(consumer, 0)  # ends before any answer
        if len(consumer.assignment()) == partitions:
            return True
        time.sleep(0.005)
    return False


def test_a_member_keeps_its_place_when_its_topic_grows_and_no_poll_waits(kafka: KafkaConnection, prefix: str) -> None:
    name = f"{prefix}topic"
    with topic(kafka, name, 2) as admin:
        consumer = KafkaConsumer(
            name,
            **kafka.kafka_python(),
            group_id=f"{prefix}group",
            session_timeout_ms=int(SESSION_SECONDS * 1000),
            heartbeat_interval_ms=500,
            metadata_max_age_ms=500,
            enable_auto_commit=False,
        )
        with closing(consumer):
            assert poll_until(consumer, 2, 20)
            first = consumer.group_metadata().generation_id
            assert first <= 2  # it does not join over and over
            admin.create_partitions({name: 3})
            assert poll_until(consumer, 3, 20)
            poll_until(consumer, 99, SESSION_SECONDS + 1)
            (group,) = admin.describe_groups([f"{prefix}group"]).values()
            assert [member["member_id"] for member in group["members"]] == [consumer.group_metadata().member_id]
            assert group["group_state"] == "Stable"


@pytest.fixture
def resting(kafka: KafkaConnection, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaConsumer]:
    """A consumer that has b in memory, while the broker has c too."""
    monkeypatch.setattr(stream.clients.member, "_ANSWER_SECONDS", 10.0)  # however slow the machine is
    name = f"{prefix}topic"
    consumer = KafkaConsumer(
        **kafka.kafka_python(), group_id=f"{prefix}group", auto_offset_reset="earliest", enable_auto_commit=False
    )
    with (
        admin_client(kafka) as admin,
        closing(KafkaProducer(**kafka.kafka_python())) as producer,
        closing(consumer),
    ):
        admin.create_topics([NewTopic(name, 1, 1)])
        consumer.subscribe([name])
        producer.send(name, b"a").get(10)
        deadline = time.monotonic() + 20
        while not consumer.poll(200):
            assert time.monotonic() < deadline
        assert not consumer.poll(200)  # asks, and leaves without an answer
        producer.send(name, b"b").get(10)
        while not consumer._fetcher._completed_fetches:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        producer.send(name, b"c").get(10)
        yield consumer
        admin.delete_topics([name])


def values(polled: dict) -> list[bytes]:
    return [record.value for records in polled.values() for record in records]


def test_what_came_since_the_last_poll_is_read_with_what_lay_in_memory(resting: KafkaConsumer) -> None:
    assert values(poll_fresh(resting, 1.0, enough=100)) == [b"b", b"c"]


def test_a_backlog_is_taken_from_memory_while_the_next_is_fetched(resting: KafkaConsumer) -> None:
    assert values(poll_fresh(resting, 1.0, enough=1)) == [b"b"]
