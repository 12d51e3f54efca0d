"""Reads topics without a consumer group: the caller says what is read and from where, and no offsets are committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Literal

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaTimeoutError

from stream.clients.connection import KafkaConnection

__all__ = ["TopicReader"]

_MIB = 1024 * 1024
_LEADER_SECONDS = 0.02  # between two checks whether the leader of a partition is known


class TopicReader:
    """Reads committed records only, none of aborted transactions.

    Partitions that stay assigned keep their positions. `when_lost` says what happens when retention or compaction
    removed the next record: `earliest` goes on with the first one that is left, `none` raises `OffsetOutOfRangeError`
    from `poll`. One thread at a time may use a reader.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        poll_records: int = 500,
        fetch_bytes: int = _MIB,  # of one partition in one answer
        wait_seconds: float = 0.5,  # longest time that a broker holds an answer back while nothing arrives
        when_lost: Literal["earliest", "none"] = "earliest",
    ) -> None:
        self._consumer = KafkaConsumer(
            **connection.kafka_python(),
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset=when_lost,
            max_poll_records=poll_records,
            max_partition_fetch_bytes=fetch_bytes,
            fetch_max_wait_ms=int(wait_seconds * 1000),
            metrics_enabled=False,
        )
        self._assigned: list[TopicPartition] = []

    def partitions(self, topic: str) -> list[TopicPartition]:
        """All partitions of a topic, by number; none when it does not exist."""
        return [TopicPartition(topic, number) for number in sorted(self._consumer.partitions_for_topic(topic) or ())]

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these and no others from now on. A partition that is new needs a `seek`."""
        self._assigned = list(partitions)
        self._consumer.assign(self._assigned)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._consumer.seek(tp, offset)

    def to_beginning(self) -> None:
        """Read all assigned partitions from their first record."""
        self._consumer.seek_to_beginning(*self._assigned)

    def to_end(self) -> None:
        """Read all assigned partitions from their ends on, as they are when this call returns."""
        self._consumer.seek_to_end(*self._assigned)
        for tp in self._assigned:
            self._consumer.position(tp)  # asks the broker now

    def position(self, tp: TopicPartition) -> int:
        """The offset of the next record to read. It also moves over gaps of compaction and transaction markers."""
        return self._consumer.position(tp)

    def beginnings(
        self, partitions: Iterable[TopicPartition], patience_seconds: float = 30.0
    ) -> Mapping[TopicPartition, int]:
        """The first offsets of the partitions. Raises `KafkaTimeoutError` when the brokers do not answer."""
        return _all_offsets(self._consumer.beginning_offsets, list(partitions), patience_seconds)

    def ends(
        self, partitions: Iterable[TopicPartition], patience_seconds: float = 30.0
    ) -> Mapping[TopicPartition, int]:
        """The offsets after the last committed records. Raises `KafkaTimeoutError` when the brokers do not answer."""
        return _all_offsets(self._consumer.end_offsets, list(partitions), patience_seconds)

    def poll(
        self, timeout_seconds: float = 0.0, most: int | None = None
    ) -> Mapping[TopicPartition, list[ConsumerRecord]]:
        """New records, at most `most` or else `poll_records`. Waits up to `timeout_seconds` for the first one."""
        return self._consumer.poll(timeout_ms=int(timeout_seconds * 1000), max_records=most)

    def read_to_end(self, patience_seconds: float = 30.0) -> Iterator[ConsumerRecord]:
        """Every record of the assigned partitions from their positions to their ends as they are now, together with
        those that arrive meanwhile in the same answers of the brokers.

        Raises `KafkaTimeoutError` when the brokers are silent for `patience_seconds`.
        """
        ends = self.ends(self._assigned)
        positions = {tp: self.position(tp) for tp in ends}
        moved = time.monotonic()
        while any(positions[tp] < end for tp, end in ends.items()):
            for records in self.poll(0.2).values():
                yield from records
            before, positions = positions, {tp: self.position(tp) for tp in ends}
            now = time.monotonic()
            if positions != before:
                moved = now
            elif now - moved > patience_seconds:
                behind = [f"{tp.topic}/{tp.partition} at {positions[tp]} of {ends[tp]}" for tp in ends]
                raise KafkaTimeoutError(f"nothing read for {patience_seconds:.0f} s: {', '.join(behind)}")

    def close(self) -> None:
        self._consumer.close(timeout_ms=2000)

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _all_offsets(
    ask: Callable[..., Mapping[TopicPartition, int]], partitions: list[TopicPartition], patience_seconds: float
) -> Mapping[TopicPartition, int]:
    """Ask for offsets until they are known for all partitions. kafka-python asks only the leaders that it knows, and
    then raises a KeyError for the other partitions; by then it has begun to look for their leaders."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return ask(partitions, timeout_ms=int(patience_seconds * 1000))
        except KeyError as error:
            if time.monotonic() > deadline:
                raise KafkaTimeoutError(f"no leader is known of {error} for {patience_seconds:.0f} s") from None
            time.sleep(_LEADER_SECONDS)
