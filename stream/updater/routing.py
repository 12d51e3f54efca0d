r"""Routes events that a producer wrote to the wrong partition to the partition that their user belongs to.

Clients hash keys differently: Java, kafka-python and aiokafka agree on murmur2, librdkafka and Sarama have hashes of
their own. As long as all events of a user come through clients with one hash, nothing is wrong: the state is kept in
the partition of the input. With two hashes, a user would have half of the history in each of two partitions.
`repartition="strict"` sends events in the wrong partition on to the right one, by murmur2, through the topic
`interactions-routed`:

    interactions/2  --(merged here)--------------------> histories/2
                    \-(the user belongs to 5)--> interactions-routed/5  --> histories/5

A request to forget a user goes to every partition: the updater that reads it merges it in the partition where it
arrived, and routes it to all other partitions, because each of them may hold events of the user.

A routed record keeps the time of its first arrival, so it is treated as if it had arrived in the right partition at
once, also by limits and by forgetting. It is written in the same transaction as the offset of the record that it
copies: it is written exactly once.
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
    """Takes every sixteenth record (by offset), and returns how many of these lie in another partition than the one
    that their key belongs to."""
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
    """The unchanged record, with the time of its first arrival."""
    return RoutedRecord(
        key=record.key,
        value=record.value,
        partition=home,
        timestamp_ms=record.timestamp,
        headers=list(record.headers),
    )


class RoutedReader:
    """Reads the partitions of the routed topic that have the same numbers as the owned partitions of `interactions`.

    It has a consumer of its own, without a group: a group would distribute the two topics independently, and one
    history would have two owners. Offsets are committed for the updater's group, in its transactions.
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
        """The records that have arrived, without waiting for more. Polls at most once in `every_seconds`."""
        now = time.monotonic()
        if not self._numbers or now < self._due:
            return {}
        self._due = now + self._every
        return self._reader.poll()

    def close(self) -> None:
        self._reader.close()
