"""Forgets a user and gives a receipt: it writes the wish to `interactions` and waits for its effects.

The updater that reads the wish erases the user's history, and sends the wish to all other partitions
(`stream.updater.routing`). In every partition of `histories`, a record of the user then says up to which time all is
erased, and every partition of `recommendations` has a deletion. The receipt has the offsets of these records, or says
which of them did not come in time: the wish stays on the topic, and takes effect when the workers read it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.consumer.fetcher import ConsumerRecord

from state import codec
from stream.clients.admin import admin_client, topic_identity
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.leaving.copies import ApiReader, Copy, look_at_api, look_at_redis
from stream.leaving.found import find_records, user_key
from stream.leaving.lineage import Models, models_without
from stream.leaving.snapshot import Progress
from stream.sinks.redis_sink import RedisSink
from stream.wire.history_version import HistoryVersion
from stream.wire.mapping import FORGET, own_headers
from stream.wire.partitioning import home_of
from stream.wire.topics import TopicPlan

__all__ = ["Place", "Receipt", "Wish", "forget_user", "renewed"]

_SEND_SECONDS = 10.0
_LOOK_SECONDS = 0.2
_NEVER = 2**62  # an offset that no model's data reach


class _List(msgspec.Struct):
    items: list[msgspec.Raw]


_list = msgspec.json.Decoder(_List)


class Wish(msgspec.Struct):
    """The record on `interactions`, with a null value, that asks to forget the user."""

    topic: str
    partition: int
    offset: int
    time: int  # of the broker, milliseconds since 1970 UTC: everything up to it is erased


class Place(msgspec.Struct):
    """One partition of `histories` or `recommendations`."""

    partition: int
    held: int  # items of the history or the list before
    offset: int | None = None  # of the record that erases; None: it did not come in time


class Receipt(msgspec.Struct):
    user: str
    was_known: bool  # `histories` had a record of the user, possibly of an earlier wish
    wish: Wish
    complete: bool  # every erasure was seen
    histories_topic: str
    histories_topic_id: str
    histories: list[Place]
    lists_topic: str
    lists: list[Place]
    copies: list[Copy]
    models: Models
    remains: list[str]
    format: int = 1


def forget_user(
    connection: KafkaConnection,
    plan: TopicPlan,
    user: str,
    wait_seconds: float,
    progress: Progress,
    sink: RedisSink | None = None,
    api: ApiReader | None = None,
) -> Receipt:
    """Forget `user`, and wait at most `wait_seconds` until the erasure is seen, also in `sink` and `api` if given.

    Raises `LeavingError`, and `KafkaError` when the wish cannot be written.
    """
    key = user_key(user)
    before, reached = find_records(
        connection, (plan.histories, plan.recommendations), lambda record: record.key == key, progress
    )
    histories, lists = _places(plan.histories, before, reached), _places(plan.recommendations, before, reached)
    with admin_client(connection) as admin:
        topic_id = topic_identity(admin, plan.histories)["topic_id"]
        wish = _send(connection, plan.interactions, key, home_of(key, len(histories)))
        deadline = time.monotonic() + wait_seconds
        _follow(connection, plan, key, wish, (histories, lists), reached, deadline)
        deletions = {place.partition: place.offset for place in lists}
        copies = [
            look_at_api(admin, plan, api, user, wish.time, deadline),
            *look_at_redis(admin, plan, sink, key, deletions, wish.time, deadline),
        ]
        remains = _remains(admin, plan, wish)
    known = any(record.topic == plan.histories for record in before)
    return Receipt(
        user=user,
        was_known=known,
        wish=wish,
        complete=all(place.offset is not None for place in (*histories, *lists))
        and all(copy.erased is not False for copy in copies),
        histories_topic=plan.histories,
        histories_topic_id=topic_id,
        histories=histories,
        lists_topic=plan.recommendations,
        lists=lists,
        copies=copies,
        models=models_without(connection, plan, topic_id, _erased(histories) if known else None),
        remains=remains,
    )


def renewed(connection: KafkaConnection, plan: TopicPlan, receipt: Receipt) -> Receipt:
    """The receipt with the models that are in service now."""
    erased = _erased(receipt.histories) if receipt.was_known else None
    models = models_without(connection, plan, receipt.histories_topic_id, erased)
    return msgspec.structs.replace(receipt, models=models)


def _erased(histories: Sequence[Place]) -> dict[int, int]:
    """The offset of the erasure by partition; `_NEVER` where it has not come yet."""
    return {place.partition: _NEVER if place.offset is None else place.offset for place in histories}


def _places(topic: str, records: Sequence[ConsumerRecord], reached: Mapping[TopicPartition, int]) -> list[Place]:
    held = {record.partition: _items(record) for record in records if record.topic == topic}  # the last one counts
    return [Place(tp.partition, held.get(tp.partition, 0)) for tp in sorted(reached) if tp.topic == topic]


def _items(record: ConsumerRecord) -> int:
    """How many items a history or a list has; 0 for a deletion and for what cannot be read."""
    if record.value is None:
        return 0
    try:
        return len(codec.decode(record.value).items)
    except codec.CodecError:
        pass
    try:
        return len(_list.decode(record.value).items)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


def _send(connection: KafkaConnection, topic: str, key: bytes, partition: int) -> Wish:
    producer = KafkaProducer(
        **connection.kafka_python(),
        acks="all",
        max_block_ms=int(_SEND_SECONDS * 1000),
        request_timeout_ms=int(_SEND_SECONDS * 500),
        delivery_timeout_ms=int(_SEND_SECONDS * 1000),
        metrics_enabled=False,
    )
    try:
        sent = producer.send(topic, None, key=key, partition=partition, headers=own_headers(FORGET))
        where = sent.get(timeout=_SEND_SECONDS)
    finally:
        producer.close(timeout=2)
    return Wish(where.topic, where.partition, where.offset, where.timestamp)


def _follow(
    connection: KafkaConnection,
    plan: TopicPlan,
    key: bytes,
    wish: Wish,
    places: tuple[Sequence[Place], Sequence[Place]],
    reached: Mapping[TopicPartition, int],
    deadline: float,
) -> None:
    """Set the offset of each erasure in `places`."""
    topics = plan.histories, plan.recommendations
    waiting = {
        TopicPartition(topic, one.partition): one for topic, of in zip(topics, places, strict=True) for one in of
    }
    erases = {plan.histories: _erases_history, plan.recommendations: _erases_list}
    with TopicReader(connection) as reader:
        reader.assign(reached)
        for tp, offset in reached.items():
            reader.seek(tp, offset)
        while waiting and time.monotonic() < deadline:
            for tp, records in reader.poll(_LOOK_SECONDS).items():
                for record in records:
                    if tp in waiting and record.key == key and erases[tp.topic](record, wish.time):
                        waiting.pop(tp).offset = record.offset


def _erases_history(record: ConsumerRecord, time_ms: int) -> bool:
    try:
        return record.value is not None and codec.decode(record.value).forgotten_ms >= time_ms
    except codec.CodecError:
        return False


def _erases_list(record: ConsumerRecord, time_ms: int) -> bool:
    """Whether the record is a deletion, or a list that was made after the wish."""
    version = HistoryVersion.from_headers(record.headers)
    return record.value is None if version is None else version.forgotten_ms >= time_ms


def _remains(admin: KafkaAdminClient, plan: TopicPlan, wish: Wish) -> list[str]:
    """Texts about the data that Kafka and disks keep for a while."""
    remains = []
    for topic in (plan.interactions, plan.routed, plan.refreshes, plan.dead_letters):
        configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        kept_ms = int(configs["topic"][topic]["retention.ms"]["value"])
        if kept_ms < 0:
            remains.append(f"{topic}: records from before the wish, for ever (retention.ms={kept_ms})")
        else:
            until = datetime.fromtimestamp((wish.time + kept_ms) / 1000, UTC)
            remains.append(f"{topic}: records from before the wish, until {until:%Y-%m-%d %H:%M} UTC at most")
    remains.append(f"{plan.histories}, {plan.recommendations}: overwritten records, until they are compacted")
    remains.append("disks of workers: overwritten bytes, until RocksDB compacts them; backups and exports made before")
    return remains
