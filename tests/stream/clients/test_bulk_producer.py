"""Many records handed over at once arrive as if each had been sent, and an aborted transaction leaves nothing."""

import contextlib
import time
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CommitFailedError, KafkaError, MessageSizeTooLargeError
from kafka.structs import OffsetAndMetadata

from ops.local.broker import LocalBroker
from stream.clients.bulk_producer import BulkProducer, TransactionStalled, bulk_producer, close_producer
from stream.clients.connection import KafkaConnection
from stream.wire.topics import TopicPlan, ensure_topics
from tests.support.updating import read_all

pytestmark = pytest.mark.kafka
BATCH = 16 * 1024


def records(count: int) -> list[tuple[bytes, bytes]]:
    """Of all sizes up to twice a batch's."""
    return [(b"u%d" % n, b"%d:" % n + b"x" * (n * 7919 % (2 * BATCH if n % 10 == 0 else 200))) for n in range(count)]


def test_all_arrive_in_order_and_each_future_names_its_offset(kafka: KafkaConnection, topics: TopicPlan) -> None:
    sent = records(2000)
    with BulkProducer(**kafka.kafka_python(), linger_ms=5, batch_size=BATCH) as producer:
        futures = producer.send_all(topics.refreshes, 1, sent[:700])
        futures.append(producer.send(topics.refreshes, sent[700][1], key=sent[700][0], partition=1))
        futures += producer.send_all(topics.refreshes, 1, iter(sent[701:]))
        assert producer.send_all(topics.refreshes, 1, []) == []
        assert [future.get(timeout=10).offset for future in futures] == list(range(2000))
    found = read_all(kafka, topics.refreshes)
    assert [(record.key, record.value) for record in found] == sent
    assert {record.partition for record in found} == {1}


def test_records_that_are_appended_one_by_one_arrive_in_order_with_their_headers(
    kafka: KafkaConnection, topics: TopicPlan
) -> None:
    sent, headers = records(2000), [("of", b"us")]
    places = [TopicPartition(topics.refreshes, 0), TopicPartition(topics.refreshes, 1)]
    with BulkProducer(**kafka.kafka_python(), linger_ms=5, batch_size=BATCH) as producer:
        futures = [producer.append(places[n % 2], *record, headers) for n, record in enumerate(sent)]
        assert [future.get(timeout=10).offset for future in futures] == [n // 2 for n in range(2000)]
    found = read_all(kafka, topics.refreshes)
    for number in range(2):
        assert [(r.key, r.value) for r in found if r.partition == number] == sent[number::2]
    assert all(record.headers == headers for record in found)


def test_a_transaction_holds_all_of_them_or_none(kafka: KafkaConnection, topics: TopicPlan) -> None:
    options: dict[str, Any] = {"batch_size": BATCH, "transactional_id": topics.prefix + "bulk"}
    with BulkProducer(**kafka.kafka_python(), **options) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send_all(topics.histories, 0, records(300))
        producer.abort_transaction()
        producer.begin_transaction()
        producer.send_all(topics.histories, 0, records(500))
        producer.send_all(topics.histories, 1, records(100))
        producer.commit_transaction()
    found = read_all(kafka, topics.histories)
    for partition, count in ((0, 500), (1, 100)):
        of_it = [(record.key, record.value) for record in found if record.partition == partition]
        assert of_it == records(count)


def test_what_send_refuses_is_refused(kafka: KafkaConnection, topics: TopicPlan) -> None:
    with (
        BulkProducer(**kafka.kafka_python(), batch_size=BATCH, max_request_size=100_000) as producer,
        pytest.raises(MessageSizeTooLargeError),
    ):
        producer.send_all(topics.refreshes, 0, [(b"u", b"small"), (b"v", b"x" * 200_000)])


def test_offsets_that_were_refused_do_not_ride_in_the_next_transaction(
    kafka: KafkaConnection, topics: TopicPlan
) -> None:
    consumer = KafkaConsumer(topics.interactions, **kafka.kafka_python(), group_id=topics.prefix + "g")
    lost, kept = (TopicPartition(topics.interactions, number) for number in (0, 1))
    with BulkProducer(**kafka.kafka_python(), transactional_id=topics.prefix + "offsets") as producer:
        producer.init_transactions()
        while not consumer.assignment():
            consumer.poll(timeout_ms=100)
        group = consumer.group_metadata()
        producer.begin_transaction()
        with pytest.raises(CommitFailedError):
            stale = group._replace(generation_id=group.generation_id + 1)
            producer.send_offsets_to_transaction({lost: OffsetAndMetadata(7, "", -1)}, stale)
        producer.abort_transaction()
        producer.begin_transaction()
        producer.send_offsets_to_transaction({kept: OffsetAndMetadata(9, "", -1)}, group)
        producer.commit_transaction()
    assert (consumer.committed(lost), consumer.committed(kept)) == (None, 9)
    consumer.close()


def test_a_transaction_without_an_answer_is_given_up_and_so_is_what_was_sent_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The broker dies for good: kafka-python alone would wait for ever, and raise at the end."""
    with LocalBroker() as broker:
        kafka = KafkaConnection(broker.bootstrap_servers)
        plan = TopicPlan(partitions=1)
        ensure_topics(kafka, plan)
        producer = bulk_producer(kafka, 1024, transactional_id="t", transaction_timeout_ms=1_000)
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(plan.histories, b"value", key=b"key", partition=0).get(timeout=10)
        other = bulk_producer(kafka, 1024)
        other.send(plan.refreshes, b"value", key=b"key", partition=0).get(timeout=10)
        broker.kill()
        began = time.monotonic()
        with pytest.raises(TransactionStalled, match="its commit"):
            producer.commit_transaction()
        assert time.monotonic() - began < 15
        with contextlib.suppress(KafkaError):
            producer.close(timeout=1)
        other.send(plan.refreshes, b"value", key=b"key", partition=0)
        close_producer(other, 1)
        assert "what was sent last may be lost: the brokers did not take it in 1 s" in caplog.text
        vars(other)["_closed"] = True  # or kafka-python tries once more when it is collected
