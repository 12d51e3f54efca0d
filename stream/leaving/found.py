"""The records of one user in the topics. Kafka has no index, so every record of a topic is read."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from state import codec
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.leaving.folder import LeavingError
from stream.leaving.snapshot import Progress, read_between

__all__ = ["find_records", "history_shown", "user_key", "value_shown"]

_POLL_RECORDS = 5_000
_FETCH_BYTES = 4 * 1024 * 1024
_LONGEST = 512  # characters of an id


def user_key(user: str) -> bytes:
    """The key of a user's records. Raises `LeavingError` for a text that cannot be a user's id."""
    if not 1 <= len(user) <= _LONGEST:
        raise LeavingError(f"a user's id has 1 to {_LONGEST} characters, got {len(user)}")
    try:
        return user.encode()
    except UnicodeEncodeError:
        raise LeavingError("a user's id is UTF-8") from None


def find_records(
    connection: KafkaConnection, topics: Iterable[str], wanted: Callable[[ConsumerRecord], bool], progress: Progress
) -> tuple[list[ConsumerRecord], Mapping[TopicPartition, int]]:
    """Every `wanted` committed record of these topics, and by partition the first offset that was not read."""
    found: list[ConsumerRecord] = []
    reached: dict[TopicPartition, int] = {}
    with TopicReader(connection, poll_records=_POLL_RECORDS, fetch_bytes=_FETCH_BYTES) as reader:
        for topic in topics:
            partitions = reader.partitions(topic)
            if not partitions:
                raise LeavingError(f"there is no topic {topic}: are the servers and --prefix right?")
            reader.assign(partitions)
            begins, ends = reader.beginnings(partitions), reader.ends(partitions)
            todo = sum(ends[tp] - begin for tp, begin in begins.items())
            for left, batch in read_between(reader, begins, ends):
                found += filter(wanted, batch)
                progress(topic, todo - left, todo)
            reached |= ends
    return found, reached


def history_shown(value: bytes) -> dict[str, Any]:
    """A history as a value for JSON. Raises `codec.CodecError`."""
    history = codec.decode(value)
    items = []
    for place, item in enumerate(history.items):
        events = [{"time": e.time_ms, "kind": e.kind, "strength": e.strength} for e in history.events(place)]
        items.append({"item": item, **events[0], "earlier": events[1:]})
    # Traces are hashes of items and kinds by day: see `state.traces`.
    return {
        "forgotten": history.forgotten_ms,
        "items": items,
        "traces": base64.b64encode(history.traces).decode(),
    }


def value_shown(value: bytes | None) -> Any:
    """A record's value for JSON: JSON unchanged, other text as text, other bytes in base64."""
    if value is None:
        return None
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        return {"text": value.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
