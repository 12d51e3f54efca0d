"""The common part of sources: sending events at their times, and counting those that Kafka has acknowledged.

A source is a loop: it waits until an event is due, and sends it. `stream.sources.replay` and `stream.sources.simulate`
are the two sources of Freshet.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError

from stream.clients.admin import admin_client, partition_count
from stream.clients.bulk_producer import BulkProducer
from stream.clients.connection import KafkaConnection
from stream.wire.mapping import PLAIN, own_headers
from stream.wire.partitioning import home_of
from stream.wire.records import Interaction

__all__ = ["Delivery", "InteractionSink", "Outbox", "Pacer", "Send", "SourceConfig", "SourceError", "as_record"]

_MIB = 1024 * 1024
_PLAIN = own_headers(PLAIN)

_encode = msgspec.json.Encoder().encode


class SourceError(RuntimeError):
    """A source cannot continue; the message says where it stopped."""


class Delivery(Protocol):
    """What `Send` returns: kafka-python's future of a record, or anything of this shape."""

    is_done: bool

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the acknowledgement. Raises the error of the delivery."""


Send = Callable[[bytes | None, bytes | None], Delivery]  # (key, value)


class Pacer:
    """Waits until events are due, in seconds since the pacer was created; `stop` ends every wait."""

    def __init__(self, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._stop, self._clock = stop, clock
        self._start = clock()

    @property
    def elapsed(self) -> float:
        return self._clock() - self._start

    def wait(self, due: float, idle: Callable[[], None]) -> bool:
        """Wait until `due`; False when stopped. `idle` is called about four times a second during the wait."""
        while not self._stop.is_set():
            remaining = due - self.elapsed
            if remaining <= 0:
                return True
            if remaining > 0.05:
                idle()
            self._stop.wait(min(remaining, 0.25))
        return False


@dataclass(frozen=True)
class SourceConfig:
    in_flight: int = 20_000  # the most records that are sent and not yet acknowledged
    delivery_seconds: float = 120.0  # how long one record may take, a restart of the broker included
    stop_seconds: float = 5.0  # how long a stopped source still waits for acknowledgements

    def __post_init__(self) -> None:
        for name in ("in_flight", "delivery_seconds", "stop_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class Outbox:
    """The records that a source sends, in order. `delivered` is the number of records, from the first on without a gap,
    that are acknowledged.

    Every method raises `SourceError` when a record failed, or when `stop` is set and Kafka does not answer.
    """

    def __init__(
        self,
        send: Send,
        config: SourceConfig | None = None,
        on_delivered: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.sent = 0
        self.delivered = 0
        self._send = send
        self._config = config or SourceConfig()
        self._on_delivered = on_delivered
        self._stop = stop or threading.Event()
        self._waiting: deque[Delivery] = deque()

    def send(self, key: bytes | None, value: bytes | None) -> None:
        """Send one record; when too many are not yet acknowledged, first wait for the oldest one."""
        if len(self._waiting) >= self._config.in_flight:
            self._settle(self._waiting[0])
            self.collect()
        try:
            self._waiting.append(self._send(key, value))
        except KafkaError as error:  # no metadata, no buffer: nothing was handed over
            raise SourceError(f"record {self.sent + 1} could not be handed to Kafka: {error!r}") from error
        self.sent += 1
        if self.sent % 256 == 0:
            self.collect()

    def collect(self) -> None:
        """Count the records that have been acknowledged since the last call."""
        before, waiting = self.delivered, self._waiting
        while waiting and waiting[0].is_done:
            self._settle(waiting[0])
            waiting.popleft()
            self.delivered += 1
        if self._on_delivered is not None and self.delivered > before:
            self._on_delivered(self.delivered)

    def drain(self) -> None:
        """Wait until all records sent are acknowledged."""
        while self._waiting:
            self._settle(self._waiting[0])
            self.collect()

    def _settle(self, delivery: Delivery) -> None:
        """Wait for one record, in short steps, so that `stop` is noticed."""
        waited, stopped = 0.0, 0.0
        while True:
            began = time.monotonic()
            try:
                delivery.get(timeout=0.25)
                return
            except KafkaError as error:
                waited += time.monotonic() - began
                stopped += time.monotonic() - began if self._stop.is_set() else 0.0
                late = waited >= self._config.delivery_seconds or stopped >= self._config.stop_seconds
                if delivery.is_done or late:
                    raise SourceError(
                        f"record {self.delivered + 1} of {self.sent} sent was not delivered: {error!r}. "
                        "Is Kafka up? Everything before it is delivered."
                    ) from error


class InteractionSink:
    """A producer of one topic for sources: large batches, and every user in the partition that Java clients choose.

    Raises `SourceError` when the topic does not exist.
    """

    def __init__(self, connection: KafkaConnection, topic: str, config: SourceConfig | None = None) -> None:
        config = config or SourceConfig()
        self.topic = topic
        self._partitions = _partitions_of(connection, topic)
        self._producer = BulkProducer(
            **connection.kafka_python(),
            linger_ms=5,
            batch_size=_MIB // 4,
            max_request_size=8 * _MIB,
            delivery_timeout_ms=int(config.delivery_seconds * 1000),
            request_timeout_ms=min(10_000, int(config.delivery_seconds * 500)),
            metrics_enabled=False,
        )

    def __call__(self, key: bytes | None, value: bytes | None) -> Delivery:
        if key is None:
            return self._producer.send(self.topic, value, headers=_PLAIN)
        # The partition is chosen here: the client's own partitioner takes a quarter of the time of a send.
        return self._producer.append(TopicPartition(self.topic, home_of(key, self._partitions)), key, value, _PLAIN)

    def close(self) -> None:
        """Send the remaining records, for five seconds at most."""
        try:
            self._producer.close(timeout=5)
        except KafkaError:  # records are left that no broker accepts: `Outbox` has raised the error
            return

    def __enter__(self) -> InteractionSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _partitions_of(connection: KafkaConnection, topic: str) -> int:
    with admin_client(connection) as admin:
        count = partition_count(admin, topic)
    if not count:
        raise SourceError(f"topic {topic} does not exist; is the --prefix right?")
    return count


def as_record(interaction: Interaction) -> tuple[bytes, bytes]:
    """Key and value of one interaction."""
    return interaction.user.encode(), _encode(interaction)
