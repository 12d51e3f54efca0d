"""Events that come over HTTP are taken or refused as the updater would."""

import asyncio
import json
import time
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError

from stream.api.events import EventWriter, Receipt, Unreadable, prepare, split_events
from stream.clients.connection import KafkaConnection
from stream.wire.partitioning import home_of
from stream.wire.records import Forget, Limits, Rejected, decode_interaction
from stream.wire.topics import TopicPlan
from tests.support.updating import read_all

NOW = 1_700_000_000_000
LIMITS = Limits()


def event(user: str = "ann", item: str = "tea", **fields: Any) -> dict[str, Any]:
    return {"user": user, "item": item, **fields}


def test_a_body_is_one_event_or_an_array_and_bytes_stay_as_they_were() -> None:
    assert split_events(b' {"user": "a"} ', 3) == [b'{"user": "a"}']
    assert split_events(b'[{"a" : 1},7, "x"]', 3) == [b'{"a" : 1}', b"7", b'"x"']


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"[", b"{", b'{"a":1}{', b'[{"a":1},]', b"\xff", b"[" * 100_000, b"nope", b"[1,2,3,4]"]
)
def test_anything_else_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        split_events(body, 3)


def test_what_is_accepted_here_is_accepted_by_the_updater() -> None:
    key, value, time_ms = prepare(json.dumps(event(timestamp=NOW, shop="x")).encode(), NOW, LIMITS)
    assert key == b"ann" and time_ms == NOW
    assert json.loads(value)["shop"] == "x"
    assert not isinstance(decode_interaction(key, value, NOW, LIMITS), Forget)


@pytest.mark.parametrize("text", ['{"user":"ann","item":"tea"}', ' { "item" : "tea" , "user" : "ann" }\n'])
def test_an_event_without_a_time_happened_now(text: str) -> None:
    _, value, time_ms = prepare(text.encode(), NOW, LIMITS)
    assert json.loads(value) == {"user": "ann", "item": "tea", "timestamp": NOW}
    assert time_ms == NOW


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "schema"),
        ("7", "schema"),
        ("null", "schema"),
        ('{"user":"","item":"x"}', "schema"),
        ('{"user":"u","item":""}', "schema"),
        ('{"user":"u"}', "schema"),
        ('{"user":7,"item":"x"}', "schema"),
        ('{"user":"u","item":"x","timestamp":null}', "schema"),
        ('{"user":"u","item":"x","timestamp":"now"}', "schema"),
        ('{"user":"u","item":"x","timestamp":1700000000}', "timestamp"),
        ('{"user":"u","item":"x","timestamp":1800000000000}', "timestamp"),
        ('{"user":"u","item":"x","weight":-1}', "schema"),
        ('{"user":"\\ud800","item":"x"}', "decode"),
        ('{"user":"u","item":"' + "x" * 600 + '"}', "schema"),
        ('{"user":"u","item":"x","more":"' + "x" * 70_000 + '"}', "oversize"),
    ],
)
def test_an_event_that_cannot_be_used_is_refused_with_the_updaters_reason(text: str, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        prepare(text.encode(), NOW, LIMITS)
    assert refused.value.reason == reason


@pytest.mark.kafka
def test_of_a_thousand_events_the_good_ones_are_kept_where_java_would_put_them(
    kafka: KafkaConnection, topics: TopicPlan
) -> None:
    now_ms = int(time.time() * 1000)
    events = [json.dumps(event(f"u{n}", f"i{n}", timestamp=now_ms)).encode() for n in range(1000)]
    events[5], events[500], events[999] = b"7", b'{"user":"u"}', b'{"user":"u","item":"i","timestamp":1}'
    writer = EventWriter(kafka, topics, LIMITS)
    receipts = asyncio.run(writer.write(events, now_ms))
    writer.close()
    assert [place for place, receipt in enumerate(receipts) if receipt.refused] == [5, 500, 999]
    assert [receipts[place].refused for place in (5, 500, 999)] == ["schema", "schema", "timestamp"]
    written = {(record.partition, record.offset): record for record in read_all(kafka, topics.interactions)}
    assert len(written) == 997
    for place, receipt in enumerate(receipts):
        if receipt.refused is None:
            assert receipt.topic == topics.interactions and receipt.partition is not None and receipt.offset is not None
            record = written[receipt.partition, receipt.offset]
            assert record.value == events[place] and record.key == f"u{place}".encode()
            assert receipt.partition == home_of(record.key, topics.partitions)
            assert receipt.as_of == min(now_ms, record.timestamp)


@pytest.mark.kafka
def test_a_receipt_names_the_time_that_a_list_will_know(kafka: KafkaConnection, topics: TopicPlan) -> None:
    """An event ahead of the broker's clock is dated back to its arrival by the updater."""
    now_ms = int(time.time() * 1000)
    writer = EventWriter(kafka, topics, LIMITS)
    (receipt,) = asyncio.run(writer.write([json.dumps(event(timestamp=now_ms + 60_000)).encode()], now_ms))
    writer.close()
    (record,) = read_all(kafka, topics.interactions)
    assert receipt.as_of == record.timestamp < now_ms + 60_000


@pytest.mark.kafka
def test_forgetting_is_a_null_value_in_the_users_partition(kafka: KafkaConnection, topics: TopicPlan) -> None:
    writer = EventWriter(kafka, topics, LIMITS)
    receipt = asyncio.run(writer.forget("ann"))
    writer.close()
    (record,) = read_all(kafka, topics.interactions)
    assert (record.key, record.value) == (b"ann", None)
    assert (receipt.partition, receipt.offset) == (record.partition, record.offset)
    assert record.partition == home_of(b"ann", topics.partitions)


@pytest.mark.kafka
def test_when_kafka_does_not_take_them_each_event_says_so(
    kafka: KafkaConnection, topics: TopicPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = EventWriter(kafka, topics, LIMITS)

    def silent(*args: object, **kwargs: object) -> None:
        raise KafkaTimeoutError("no broker answered")

    monkeypatch.setattr(writer._producer, "send", silent)
    receipts = asyncio.run(writer.write([json.dumps(event()).encode(), b"7"], NOW))
    writer.close()
    assert receipts[0] == Receipt(failed="KafkaTimeoutError", detail="KafkaTimeoutError: no broker answered")
    assert receipts[1].refused == "schema"
