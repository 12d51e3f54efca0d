"""CloudEvents with keys of their own, read by an updater: whole histories at home, and dead letters as they came."""

import json
from pathlib import Path

import pytest
from kafka import KafkaProducer

from state.history import Entry
from stream.clients.connection import KafkaConnection
from stream.demo.audit import changelog_histories, differences, reference_merge
from stream.sources.outbox import InteractionSink
from stream.updater.config import UpdaterConfig
from stream.wire.dead_letters import original_headers
from stream.wire.mapping import FORGET, InputMapping, own_headers
from stream.wire.partitioning import home_of
from stream.wire.topics import TopicPlan
from tests.support.updating import applied, interaction, read_all, rejected, running, until

NOW = 1_764_000_000_000
MAPPING = InputMapping(form="cloudevents", kinds=("com.shop.order=buy",), key="any")


@pytest.mark.kafka
def test_events_of_others_become_histories_in_their_users_partitions(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    config = UpdaterConfig(tmp_path, history_items=10, checkpoint_seconds=0.2, repartition="strict", input=MAPPING)
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"7"), ("ce_source", b"/shop"), ("ce_type", b"com.shop.order")]
    dated = [*headers, ("ce_time", b"2025-11-24T16:00:00.007Z")]
    users = [f"u{n}" for n in range(20)]
    with running(config, kafka, plan) as metrics:
        producer = KafkaProducer(**kafka.kafka_python())
        for n, user in enumerate(users):
            data = json.dumps({"user": user, "item": "tea"}).encode()
            producer.send(plan.interactions, data, key=b"order-%d" % n, headers=dated, partition=n % 2)
        producer.send(plan.interactions, b'{"user": "u1"}', key=b"order-99", headers=headers, partition=0)
        producer.send(plan.interactions, None, key=b"u2", partition=0)  # the deletion of a row
        producer.flush()
        until(lambda: applied(metrics) == len(users) and rejected(metrics) == 2, "taking all events in")
        expected = reference_merge([(user, Entry(NOW + 7, "tea", 1.0, "buy")) for user in users], 10)
        until(lambda: not differences(changelog_histories(kafka, plan.histories), expected), "all histories")
        for record in read_all(kafka, plan.histories):
            assert record.partition == home_of(record.key, plan.partitions)
        first, second = sorted(read_all(kafka, plan.dead_letters), key=lambda letter: letter.key)
        assert (first.key, first.value) == (b"order-99", b'{"user": "u1"}')
        assert original_headers(first.headers)[: len(headers)] == headers
        assert b"data.item: there is no 'item', only user" in dict(first.headers).values()
        assert (second.key, dict(second.headers)["reason"]) == (b"u2", b"schema")

        replayed = InteractionSink(kafka, plan.interactions)  # in our own form, as from `freshet replay`
        replayed(*interaction("dan", "cup", NOW)).get(timeout=10)
        replayed.close()
        until(lambda: "dan" in changelog_histories(kafka, plan.histories), "an event in our own form")

        producer.send(plan.interactions, None, key=b"u2", headers=own_headers(FORGET), partition=0).get(timeout=10)
        until(lambda: not changelog_histories(kafka, plan.histories)["u2"].items, "forgetting")
        producer.close()
