"""Sends the scorer the history of every user whose events changed it, or for whom a new model has to rank."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import Any

from state import codec
from stream.clients.bulk_producer import bulk_producer, close_producer
from stream.clients.connection import KafkaConnection
from stream.updater.merging import Change, Changed
from stream.wire.records import Refresh, RefreshReason
from stream.wire.topics import TopicPlan

__all__ = ["RefreshSender"]


class RefreshSender:
    """Sends to the partition that holds the history. A checkpoint waits for the refreshes in flight."""

    def __init__(self, connection: KafkaConnection, plan: TopicPlan) -> None:
        self._topic = plan.refreshes
        self._in_flight: list[Any] = []
        self._producer = bulk_producer(
            connection, plan.message_bytes, linger_ms=2, request_timeout_ms=10_000, delivery_timeout_ms=30_000
        )

    def send_changes(self, changes: Iterable[Changed]) -> None:
        """Send all changes of a turn at once: within the producer's linger time they leave in one request, not in one
        per partition, and the scorer receives them by one fetch."""
        for number, changed in groupby(changes, attrgetter("partition")):
            self._send(number, ((user, _refresh(change, history)) for _, user, change, history in changed))

    def send_stored(self, number: int, user: bytes, history: bytes, now_ms: int, live_offset: int) -> None:
        """Send a history that did not change, for the model that was announced at this offset of `models`."""
        self._send(number, [(user, Refresh("model", now_ms, (), codec.for_reading(history), live_offset))])

    def _send(self, number: int, refreshes: Iterable[tuple[bytes, Refresh]]) -> None:
        encoded = [(user, refresh.encode()) for user, refresh in refreshes]
        self._in_flight += self._producer.send_all(self._topic, number, encoded)

    @property
    def in_flight(self) -> int:
        """How many refreshes were sent and not yet taken over by a checkpoint."""
        return len(self._in_flight)

    def take(self) -> list[Any]:
        """The futures of the refreshes in flight, for a checkpoint to wait for."""
        taken, self._in_flight = self._in_flight, []
        return taken

    def close(self) -> None:
        close_producer(self._producer, 3)


def _refresh(change: Change, history: bytes) -> Refresh:
    reason: RefreshReason = "forget" if change.forgotten and not change.history.items else "event"
    return Refresh(reason, change.arrived_ms, tuple(change.new), codec.for_reading(history))
