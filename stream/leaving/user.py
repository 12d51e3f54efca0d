"""All data about one user, as one JSON document."""

from __future__ import annotations

import time
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord

from state import codec
from stream.clients.connection import KafkaConnection
from stream.leaving.found import find_records, history_shown, user_key, value_shown
from stream.leaving.snapshot import Progress
from stream.wire.mapping import InputMapping, Translator
from stream.wire.records import Limits, Rejected
from stream.wire.topics import TopicPlan

__all__ = ["export_user"]


def export_user(
    connection: KafkaConnection, plan: TopicPlan, user: str, progress: Progress, mapping: InputMapping | None = None
) -> dict[str, Any]:
    """The records of `user` in the topics; all other data of Freshet is derived from these records. Refreshes, which
    repeat the history, are left out. If the mapping says that keys are not users, the user of an event is read from its
    value. Raises `LeavingError`."""
    key = user_key(user)
    topics = plan.histories, plan.recommendations, plan.interactions, plan.routed, plan.dead_letters
    translator = None if mapping is None or mapping.key == "user" else mapping.translator
    mapped = (plan.interactions, plan.routed)

    def wanted(record: ConsumerRecord) -> bool:
        return record.key == key or (
            translator is not None and record.topic in mapped and _whose(record, translator) == key
        )

    records, reached = find_records(connection, topics, wanted, progress)
    by_topic: dict[str, list[ConsumerRecord]] = {topic: [] for topic in topics}
    for record in records:
        by_topic[record.topic].append(record)
    offsets: dict[str, dict[int, int]] = {topic: {} for topic in topics}
    for tp, offset in sorted(reached.items()):
        offsets[tp.topic][tp.partition] = offset
    lists = _last(by_topic[plan.recommendations])
    return {
        "user": user,
        "exported": int(time.time() * 1000),
        "offsets": offsets,  # of each topic, by partition: the first offset that was not read
        "histories": [_history(record) for record in _last(by_topic[plan.histories])],
        "lists": [_with_place(one, list=value_shown(one.value)) for one in lists],
        "events": [
            _with_place(record, topic=record.topic, arrived=record.timestamp, event=value_shown(record.value))
            for topic in (plan.interactions, plan.routed)
            for record in by_topic[topic]
        ],
        "dead_letters": [
            _with_place(
                record,
                headers={name: (value or b"").decode(errors="replace") for name, value in record.headers},
                record=value_shown(record.value),
            )
            for record in by_topic[plan.dead_letters]
        ],
    }


def _whose(record: ConsumerRecord, translator: Translator) -> bytes:
    try:
        return translator.decode(record, Limits())[0]
    except Rejected:
        return b""


def _with_place(consumed: ConsumerRecord, **fields: Any) -> dict[str, Any]:
    return {"partition": consumed.partition, "offset": consumed.offset, **fields}


def _last(records: list[ConsumerRecord]) -> list[ConsumerRecord]:
    """The last record of each partition, unless it is a deletion."""
    last = {record.partition: record for record in records}
    return [record for _, record in sorted(last.items()) if record.value is not None]


def _history(record: ConsumerRecord) -> dict[str, Any]:
    try:
        return _with_place(record, **history_shown(record.value or b""))
    except codec.CodecError as error:
        return _with_place(record, unreadable=str(error), bytes=value_shown(record.value))
