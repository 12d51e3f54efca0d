import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

import stream.clients.fresh_poll
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.clients.fresh_poll import poll_fresh


@pytest.fixture
def resting(kafka: KafkaConnection, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaConsumer]:
    """A consumer that has b in memory, while the broker has c too."""
    monkeypatch.setattr(stream.clients.fresh_poll, "_ANSWER_SECONDS", 10.0)  # however slow the machine is
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
