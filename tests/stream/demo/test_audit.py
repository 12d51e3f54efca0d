"""What the audit takes for true when somebody else wrote to the topic as well."""

import time

import pytest
from kafka import KafkaProducer

from state.history import EMPTY, Entry, merge_entries
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.demo.audit import records_written, reference_of_topic
from stream.demo.report import DemoReport
from stream.sources.outbox import as_record
from stream.wire.records import Interaction
from stream.wire.topics import TopicPlan, ensure_topics


@pytest.mark.kafka
def test_the_topic_itself_says_what_histories_must_be(kafka: KafkaConnection, plan: TopicPlan) -> None:
    ensure_topics(kafka, plan)
    admin = admin_client(kafka)
    producer = KafkaProducer(**kafka.kafka_python())
    before_ms = int(time.time() * 1000) - 60_000
    for user, item, time_ms in (("ann", "tea", before_ms), ("ann", "cup", before_ms + 1), ("bob", "tea", before_ms)):
        key, value = as_record(Interaction(user, item, time_ms))
        producer.send(plan.interactions, value, key=key)
    producer.send(plan.interactions, b'{"user": "ann", "item', key=b"ann")
    forgotten = producer.send(plan.interactions, None, key=b"bob").get(10)
    producer.close()

    assert records_written(admin, plan.interactions) == 5
    found = reference_of_topic(kafka, plan.interactions, limit=10)
    admin.close()
    entries = [Entry(before_ms, "tea", 1.0), Entry(before_ms + 1, "cup", 1.0)]
    assert found["ann"] == merge_entries(EMPTY, entries, 10)
    assert (found["bob"].items, found["bob"].forgotten_ms) == ((), forgotten.timestamp)


def test_records_from_elsewhere_are_told_and_lost_ones_are_a_failure() -> None:
    sound = DemoReport(sent=10, elsewhere=1, accepted=10, dead_letters=1, lists=9, models=["v1", "v2"], scored=5)
    sound.clean = True
    assert sound.problems() == []
    assert sound.sent_in_words == "10 sent + 1 from elsewhere"
    lost = DemoReport(sent=10, accepted=9, lists=9, models=["v1", "v2"], scored=5, clean=True)
    assert lost.problems() == ["10 sent, but 9 accepted + 0 dead letters"]
