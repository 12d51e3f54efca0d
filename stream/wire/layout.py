"""How users are laid out over partitions, agreed on by all processes through the compacted topic `layout`.

Without a record, a user's partition is the one to which producers send the user's events. `freshet repartition` writes
a record: from then on each user's partition is the one that murmur2 gives, whatever the producers do
(`stream.updater.routing`). While users are being moved, no worker starts.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from kafka import KafkaProducer

from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.topics import TopicError, TopicPlan, ensure_topics

__all__ = ["Layout", "agreed_layout", "read_layout", "ready_topics", "write_layout"]

_KEY = b"layout"


class Layout(msgspec.Struct, frozen=True):
    partitions: int
    routing: Literal["off", "strict"] = "off"
    moving: bool = False  # users are being moved between partitions


def read_layout(connection: KafkaConnection, topic: str) -> Layout | None:
    """The newest record; None when there is none. Raises `msgspec.ValidationError` for one of a newer Freshet."""
    with TopicReader(connection) as reader:
        reader.assign(reader.partitions(topic))
        reader.to_beginning()
        values = [record.value for record in reader.read_to_end() if record.key == _KEY and record.value is not None]
    return msgspec.json.decode(values[-1], type=Layout) if values else None


def write_layout(connection: KafkaConnection, topic: str, layout: Layout) -> None:
    """Write a record; returns when the brokers have it."""
    producer = KafkaProducer(**connection.kafka_python(), acks="all", metrics_enabled=False)
    try:
        producer.send(topic, msgspec.json.encode(layout), key=_KEY, partition=0).get(timeout=30)
    finally:
        producer.close(timeout=5)


def ready_topics(connection: KafkaConnection, plan: TopicPlan) -> Layout:
    """Every worker calls this first: it makes sure that the topics exist and fit, and returns the agreed layout.

    Raises `TopicError`.
    """
    ensure_topics(connection, plan)
    return agreed_layout(connection, plan)


def agreed_layout(connection: KafkaConnection, plan: TopicPlan) -> Layout:
    """The layout by which a worker may start. Raises `TopicError` when it must not."""
    layout = read_layout(connection, plan.layout)
    if layout is None:
        return Layout(plan.partitions)
    if layout.moving:
        raise TopicError(
            f"users are being moved to {layout.partitions} partitions: wait for `freshet repartition`, or run "
            f"`freshet repartition --partitions {layout.partitions}` again if it was interrupted"
        )
    if layout.partitions != plan.partitions:
        raise TopicError(
            f"this Freshet is laid out over {layout.partitions} partitions, not {plan.partitions}: set --partitions "
            f"{layout.partitions}"
        )
    return layout
