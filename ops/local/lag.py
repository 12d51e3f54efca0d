"""The lag of consumer groups, read from the brokers: a consumer that hangs cannot report its own lag."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

from ops.metrics import TrainerMetrics

__all__ = ["LagPoller", "OffsetsAdmin", "lag"]

log = logging.getLogger(__name__)


class OffsetsAdmin(Protocol):
    """The part of `kafka.admin.KafkaAdminClient` that is used. The poller needs a client of its own, because it runs
    in its own thread."""

    def list_group_offsets(self, group_specs: Any) -> Mapping[str, Mapping[TopicPartition, Any]]: ...

    def list_partition_offsets(self, topic_partition_specs: Any) -> Mapping[TopicPartition, Any]: ...

    def close(self) -> None: ...


def lag(end: int, beginning: int, committed: int | None) -> int:
    """Records that a consumer has still to read.

    Records that retention removed do not count, and offsets read at different moments never make the lag negative.

    >>> lag(end=100, beginning=0, committed=90), lag(end=100, beginning=95, committed=10), lag(100, 95, None)
    (10, 5, 5)
    >>> lag(end=100, beginning=0, committed=101)
    0
    """
    return max(end - max(committed or 0, beginning), 0)


class LagPoller:
    """Polls the lag of consumer groups into the trainer's metrics.

    `groups` names for each group the partitions it consumes: {group: {topic: partitions}}.
    """

    def __init__(
        self,
        admin: OffsetsAdmin,
        groups: Mapping[str, Mapping[str, int]],
        metrics: TrainerMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._admin, self._metrics, self._clock = admin, metrics, clock
        self._partitions: dict[str, Sequence[TopicPartition]] = {
            group: [TopicPartition(topic, number) for topic, count in topics.items() for number in range(count)]
            for group, topics in groups.items()
        }

    def poll(self) -> dict[tuple[str, TopicPartition], int]:
        """Lag by (group, partition). Raises `KafkaError`; the gauges then keep their values and their time."""
        wanted = sorted({tp for partitions in self._partitions.values() for tp in partitions})
        # Committed offsets are read first: ends that are read later can only be larger.
        committed = self._admin.list_group_offsets(dict(self._partitions))
        beginnings = self._admin.list_partition_offsets(dict.fromkeys(wanted, OffsetSpec.EARLIEST))
        ends = self._admin.list_partition_offsets(dict.fromkeys(wanted, OffsetSpec.LATEST))
        found = {}
        for group, partitions in self._partitions.items():
            offsets = committed.get(group, {})
            for tp in partitions:
                known = offsets.get(tp)
                offset = None if known is None or known.offset < 0 else known.offset
                behind = found[group, tp] = lag(ends[tp].offset, beginnings[tp].offset, offset)
                labels = (group, tp.topic, str(tp.partition))
                self._metrics.consumer_lag_records.labels(*labels).set(behind)
                self._metrics.consumer_committed_offset.labels(*labels).set(offset or 0)
        self._metrics.consumer_lag_polled_timestamp.set(self._clock())
        return found

    def run(self, stop: threading.Event, every_seconds: float = 15.0) -> None:
        """Poll until `stop`, then close the admin client. If a broker does not answer, the next poll asks again."""
        try:
            while True:
                try:
                    self.poll()
                except KafkaError as error:
                    log.warning("the lag could not be polled: %s: %s", type(error).__name__, error)
                if stop.wait(every_seconds):
                    return
        finally:
            self._admin.close()
