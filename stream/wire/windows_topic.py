"""The topic `monitor-windows`: workers write what they counted of each window, the trainer reads all of it.

A record holds a window's running totals and replaces the worker's earlier ones, so a record that is lost costs nothing
once the next one arrives, and reading the topic from its beginning tells all that is known.
"""

from __future__ import annotations

import logging
import socket
import time
import uuid

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from ops.monitor.windows import WindowCounter
from stream.clients.connection import KafkaConnection

__all__ = ["WindowReader", "WindowSender", "worker_name"]

log = logging.getLogger(__name__)

_PARTITION = 0


def worker_name(kind: str) -> str:
    """New with every start: totals that began anew never replace those of the process before."""
    return f"{kind}@{socket.gethostname()}:{uuid.uuid4().hex[:12]}"


class WindowSender:
    """Sends what changed, at most every `every_seconds`. It never fails and hardly ever blocks its worker."""

    def __init__(self, connection: KafkaConnection, topic: str, every_seconds: float = 5.0) -> None:
        self._topic, self._every = topic, every_seconds
        self._due = 0.0
        self._producer = KafkaProducer(**connection.kafka_python(), acks=1, linger_ms=50, max_block_ms=2_000)

    def send(self, windows: WindowCounter, now: bool = False) -> None:
        if not now and time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._every
        try:
            for record in windows.take():
                self._producer.send(self._topic, record.encode(), key=record.key, partition=_PARTITION)
        except KafkaError as error:
            log.warning("the monitor's windows wait: %s: %s", type(error).__name__, error)

    def close(self) -> None:
        self._producer.close(timeout=2)


class WindowReader:
    """Reads every record, from the beginning, without a group."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._tp = TopicPartition(topic, _PARTITION)
        self._consumer = KafkaConsumer(
            **connection.kafka_python(), group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        self._consumer.assign([self._tp])
        self._consumer.seek_to_beginning(self._tp)

    def catch_up(self, timeout_seconds: float = 60.0) -> list[bytes]:
        """All records that are there now. Raises `KafkaTimeoutError` when the brokers do not answer."""
        found: list[bytes] = []
        deadline = time.monotonic() + timeout_seconds
        end = self._consumer.end_offsets([self._tp])[self._tp]
        while self._consumer.position(self._tp) < end:
            found += self.poll(timeout_ms=200)
            if time.monotonic() > deadline:
                raise KafkaTimeoutError(f"{self._tp.topic}: not read to its end {end} in {timeout_seconds:.0f} s")
        return found

    def poll(self, timeout_ms: int = 0) -> list[bytes]:
        polled = self._consumer.poll(timeout_ms=timeout_ms)
        return [record.value for records in polled.values() for record in records if record.value is not None]

    def close(self) -> None:
        self._consumer.close(timeout_ms=2000)
