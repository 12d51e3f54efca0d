"""Which letters were sent again, on the compacted topic `layout`: one record for each partition of `dead-letters`.

The record is written in the transaction that sends the letters, so a letter is either sent and recorded as sent, or
neither. Readers of the layout ignore records that they do not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from stream.clients.admin import admin_client, partition_count, topic_identity
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.letters.reading import Letter, LetterError
from stream.wire.topics import TopicPlan

__all__ = ["Resent", "read_resent"]

_KEY = b"resent/"


class _Record(msgspec.Struct, frozen=True):
    topic_id: str  # because the offsets of a topic that was deleted and created again begin at 0
    ranges: tuple[tuple[int, int], ...]  # first and last offset of each run, in order


class Resent:
    """The offsets of the letters of one topic that were sent again, as runs."""

    def __init__(self, topic: str, topic_id: str) -> None:
        self._topic, self._topic_id = topic, topic_id
        self._runs: dict[int, list[tuple[int, int]]] = {}

    def __contains__(self, letter: Letter) -> bool:
        return any(first <= letter.offset <= last for first, last in self._runs.get(letter.partition, ()))

    def add(self, found: Iterable[Letter]) -> None:
        for letter in found:
            runs = sorted([*self._runs.get(letter.partition, ()), (letter.offset, letter.offset)])
            self._runs[letter.partition] = list(_joined(runs))

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Read a record of the topic `layout`. Raises `msgspec.ValidationError` for one of a newer Freshet."""
        prefix = _KEY + self._topic.encode() + b"/"
        if key is None or not key.startswith(prefix) or value is None:
            return
        record = msgspec.json.decode(value, type=_Record)
        if record.topic_id == self._topic_id:
            self._runs[int(key[len(prefix) :])] = list(record.ranges)

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values for the topic `layout`."""
        for partition, runs in self._runs.items():
            key = _KEY + f"{self._topic}/{partition}".encode()
            yield key, msgspec.json.encode(_Record(self._topic_id, tuple(runs)))


def _joined(runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    current: tuple[int, int] | None = None
    for first, last in runs:
        if current is not None and first <= current[1] + 1:
            current = current[0], max(current[1], last)
        else:
            if current is not None:
                yield current
            current = first, last
    if current is not None:
        yield current


def read_resent(connection: KafkaConnection, plan: TopicPlan) -> Resent:
    """The letters that were sent again so far. Raises `LetterError` when `dead-letters` or `layout` does not exist."""
    with admin_client(connection) as admin:
        for topic in (plan.dead_letters, plan.layout):
            if not partition_count(admin, topic):
                raise LetterError(f"topic {topic} does not exist; is the --prefix right?")
        resent = Resent(plan.dead_letters, topic_identity(admin, plan.dead_letters)["topic_id"])
    with TopicReader(connection) as reader:
        reader.assign(reader.partitions(plan.layout))
        reader.to_beginning()
        for record in reader.read_to_end():
            resent.take(record.key, record.value)
    return resent
