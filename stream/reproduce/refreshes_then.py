"""Reads refreshes again by their offsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.leaving.snapshot import read_between

__all__ = ["RefreshesGone", "RefreshesThen"]

Position = tuple[int, int]  # partition, offset


class RefreshesGone(RuntimeError):
    """Retention has removed the wanted records."""


class RefreshesThen:
    """A reader of `refreshes`; close it after use."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._topic = topic
        self._reader = TopicReader(connection, poll_records=5_000, fetch_bytes=4 * 1024 * 1024)
        partitions = self._reader.partitions(topic)
        self._begins = {tp.partition: begin for tp, begin in self._reader.beginnings(partitions).items()}

    def read(self, positions: Iterable[Position]) -> Mapping[Position, ConsumerRecord]:
        """The records at these positions. Raises `RefreshesGone`."""
        wanted = set(positions)
        ranges: dict[int, tuple[int, int]] = {}
        for number, offset in wanted:
            first, following = ranges.get(number, (offset, offset + 1))
            ranges[number] = min(first, offset), max(following, offset + 1)
        for number, (first, _) in ranges.items():
            begin = self._begins.get(number)
            if begin is None or first < begin:
                left = "there is no such partition" if begin is None else f"the first that is left is {begin}"
                raise RefreshesGone(f"{self._topic} {number}@{first} is gone by retention: {left}")
        partitions = {TopicPartition(self._topic, number): bounds for number, bounds in ranges.items()}
        found: dict[Position, ConsumerRecord] = {}
        self._reader.assign(partitions)
        begins = {tp: first for tp, (first, _) in partitions.items()}
        ends = {tp: following for tp, (_, following) in partitions.items()}
        for _, batch in read_between(self._reader, begins, ends) if partitions else ():
            for record in batch:
                place = record.partition, record.offset
                if place in wanted:
                    found[place] = record
        missing = wanted - found.keys()
        if missing:
            number, offset = min(missing)
            raise RefreshesGone(f"{self._topic} {number}@{offset} is not there")
        return found

    def last_of(self, user: bytes, until_ms: int) -> Position | None:
        """The position of the user's last refresh up to this time, if one is left."""
        partitions = self._reader.partitions(self._topic)
        self._reader.assign(partitions)
        begins, ends = self._reader.beginnings(partitions), self._reader.ends(partitions)
        last: ConsumerRecord | None = None
        for _, batch in read_between(self._reader, begins, ends):
            for record in batch:
                if record.key == user and record.timestamp <= until_ms:
                    last = record if last is None or record.timestamp >= last.timestamp else last
        return None if last is None else (last.partition, last.offset)

    def close(self) -> None:
        self._reader.close()
