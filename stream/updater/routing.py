r"""Which partition a user belongs to, and the way there for events that a producer put elsewhere.

Clients hash keys differently: Java, kafka-python and aiokafka agree on murmur2, librdkafka and Sarama have hashes of
their own. As long as each user's events come through one of them nothing is wrong: state follows the partition of the
input. Where two meet, a user would have half a history in each of two partitions. `repartition="strict"` sends events
from the wrong partition on, by murmur2, through the topic `interactions-routed`:

    interactions/2  --(merged here)--------------------> histories/2
                    \-(the user belongs to 5)--> interactions-routed/5  --> histories/5

Forgetting a user goes everywhere: whoever reads the wish merges it where it came, and sends it on to all other
partitions, for the user may have left something in each of them.

A routed record keeps the time of its first arrival, so limits and forgetting judge it as if it had come straight. It is
part of the checkpoint's transaction, like the offset of the record it copies: it is there once, or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from kafka import TopicPartition

from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.partitioning import home_of
from stream.wire.records import InputRecord

__all__ = ["Repartition", "RoutedReader", "RoutedRecord", "routed_record", "sampled_misplaced"]

Repartition = Literal["off", "strict"]

_SAMPLE = 16  # the hash, in plain Python, costs more than decoding the record


def sampled_misplaced(records: Sequence[InputRecord], partitions: int) -> int:
    """How many of every sixteenth record (by offset) lie in another partition than their key's home."""
    sample = records[-records[0].offset % _SAMPLE :: _SAMPLE]
    return sum(record.key is not None and home_of(record.key, partitions) != record.partition for record in sample)


class RoutedRecord(TypedDict):
    """Keyword arguments of a producer's `send`."""

    key: bytes | None
    value: bytes | None
    partition: int
    timestamp_ms: int
    headers: list[tuple[str, bytes]]


def routed_record(record: InputRecord, home: int) -> RoutedRecord:
    """The record as it came, dated with its first arrival."""
    return RoutedRecord(
        key=record.key,
        value=record.value,
        partition=home,
        timestamp_ms=record.timestamp,
        headers=list(record.headers),
    )


class RoutedReader:
    """Reads the routed topic's partitions of the same numbers as the owned ones of `interactions`.

    A consumer of its own without a group: a group would share the two topics out independently, and one history would
    have two owners. Offsets are committed for the updater's group, in its transactions.
    """

    def __init__(
        self, connection: KafkaConnection, topic: str, poll_records: int, fetch_bytes: int, every_seconds: float
    ) -> None:
        self.topic = topic
        self._every, self._due = every_seconds, 0.0
        self._reader = TopicReader(connection, poll_records=poll_records, fetch_bytes=fetch_bytes, wait_seconds=0.1)
        self._numbers: set[int] = set()

    def begin(self, number: int, committed: int | None) -> int:
        """Read a partition from its committed offset on; returns where that is."""
        tp = TopicPartition(self.topic, number)
        start = max(committed or 0, self._reader.beginnings([tp])[tp])
        self._numbers.add(number)
        self._assign()
        self._reader.seek(tp, start)
        return start

    def start(self, tp: TopicPartition, offset: int) -> None:
        """Read a partition again from this offset on."""
        self._reader.seek(tp, offset)

    def release(self, numbers: Iterable[int]) -> None:
        gone = self._numbers.intersection(numbers)
        if gone:
            self._numbers -= gone
            self._assign()

    def _assign(self) -> None:
        self._reader.assign([TopicPartition(self.topic, number) for number in sorted(self._numbers)])

    def poll(self) -> Mapping[TopicPartition, list[Any]]:
        """What has arrived, without waiting; looked for at most every `every_seconds`."""
        now = time.monotonic()
        if not self._numbers or now < self._due:
            return {}
        self._due = now + self._every
        return self._reader.poll()

    def close(self) -> None:
        self._reader.close()
