"""The topic `monitor-windows`: workers write their counts of each window, the trainer reads all of them.

A record holds a window's running totals and replaces the worker's earlier totals of that window. So a lost record does
no harm once the next one arrives, and reading the topic from its beginning gives all that is known.
"""

from __future__ import annotations

import logging
import socket
import time
import uuid

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from ops.monitor.windows import WindowCounter
from stream.clients.bulk_producer import close_producer
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader

__all__ = ["WindowReader", "WindowSender", "worker_name"]

log = logging.getLogger(__name__)

_PARTITION = 0


def worker_name(kind: str) -> str:
    """A name that is new with every start, so that totals that began anew never replace those of the process before."""
    return f"{kind}@{socket.gethostname()}:{uuid.uuid4().hex[:12]}"


class WindowSender:
    """Sends windows that changed, at most every `every_seconds`. It raises no `KafkaError`, and hardly ever blocks."""

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
        close_producer(self._producer, 2)


class WindowReader:
    """Reads every record, from the beginning, without a group."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._reader = TopicReader(connection)
        self._reader.assign([TopicPartition(topic, _PARTITION)])
        self._reader.to_beginning()

    def catch_up(self) -> list[bytes]:
        """All records that are there now. Raises `KafkaTimeoutError` when the brokers do not answer."""
        return [record.value for record in self._reader.read_to_end() if record.value is not None]

    def poll(self) -> list[bytes]:
        polled = self._reader.poll()
        return [record.value for records in polled.values() for record in records if record.value is not None]

    def close(self) -> None:
        self._reader.close()
