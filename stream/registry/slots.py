"""Which model is live: the slots of the compacted topic `models`, read, moved and taken back.

    live      what the scorers serve
    candidate what some users are served to try it out; mostly nothing
    previous  what was live before it, kept ready to go back to
    retired   the last one that was taken back; never a parent again

A slot moves by one acknowledged record. Promotion writes `previous` before `live`: a crash between the two leaves both
naming the old live model, so everything goes on as before and only the way further back is gone. The other order could
leave a new live model whose `previous` is two steps behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property

import msgspec
from kafka import KafkaProducer, TopicPartition

from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.records import Announcement, Rejected

__all__ = ["NoWayBack", "Slots", "announce_rollback", "read_slots"]

log = logging.getLogger(__name__)

ACKNOWLEDGED_SECONDS = 20.0


class NoWayBack(RuntimeError):
    """There is no other model to go back to."""


class Slots:
    """Follows `models` and writes to it. `live` and the others are what `poll` last saw."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._connection, self._tp = connection, TopicPartition(topic, 0)
        self.current: dict[str, Announcement] = {}
        self._reader = TopicReader(connection, wait_seconds=0.1)
        self._reader.assign([self._tp])
        self._reader.to_beginning()
        self.catch_up()

    @cached_property
    def _producer(self) -> KafkaProducer:  # most followers never write
        return KafkaProducer(
            **self._connection.kafka_python(), acks="all", request_timeout_ms=10_000, delivery_timeout_ms=15_000
        )

    @property
    def live(self) -> Announcement | None:
        return self.current.get("live")

    @property
    def previous(self) -> Announcement | None:
        return self.current.get("previous")

    def catch_up(self) -> None:
        """Read to the end of the topic as it is now. Raises `KafkaTimeoutError` when the brokers do not answer."""
        for record in self._reader.read_to_end():
            self._take(record.key, record.value)

    def poll(self, timeout_seconds: float = 0.0) -> bool:
        """Take in what was announced; True when a slot moved."""
        moved = False
        for records in self._reader.poll(timeout_seconds).values():
            for record in records:
                moved |= self._take(record.key, record.value)
        return moved

    def _take(self, key: bytes | None, value: bytes | None) -> bool:
        slot = (key or b"").decode(errors="replace")
        before = self.current.get(slot)
        if value is None:
            self.current.pop(slot, None)
        else:
            try:
                self.current[slot] = Announcement.decode(value)
            except Rejected as error:
                log.error("%s: slot %r keeps its model: %s", self._tp.topic, slot, error)
        return self.current.get(slot) != before

    def put(self, slot: str, announcement: Announcement) -> None:
        """Move one slot; returns once the brokers acknowledged it. Raises `KafkaError` when they did not."""
        announcement = msgspec.structs.replace(announcement, slot=slot)
        self._write(slot, msgspec.json.encode(announcement))
        self.current[slot] = announcement

    def clear(self, slot: str) -> None:
        """Empty one slot, as `put` moves one."""
        self._write(slot, None)
        self.current.pop(slot, None)

    def _write(self, slot: str, value: bytes | None) -> None:
        future = self._producer.send(self._tp.topic, value, key=slot.encode(), partition=self._tp.partition)
        self._producer.flush(timeout=ACKNOWLEDGED_SECONDS)
        future.get(timeout=ACKNOWLEDGED_SECONDS)  # flush does not raise for a record that failed

    def promote(self, announcement: Announcement, crash: Callable[[str], None] = lambda point: None) -> None:
        """Take a model live, and keep the one it follows as `previous`."""
        if self.live is not None:
            self.put("previous", self.live)
        crash("previous")
        self.put("live", announcement)

    def roll_back(self) -> tuple[Announcement, Announcement]:
        """Take `previous` live and retire what was; returns (live, retired). Raises `NoWayBack`."""
        bad, good = self.live, self.previous
        if bad is None:
            raise NoWayBack("no model is live: there is nothing to roll back")
        if good is None or good.version == bad.version:
            raise NoWayBack(f"{bad.version} is live and no earlier version is kept: train a new one, or publish one")
        self.put("live", good)  # first what ends the harm, then the bookkeeping
        self.put("retired", bad)
        return good, bad

    def close(self) -> None:
        self._reader.close()
        if "_producer" in self.__dict__:
            self._producer.close(timeout=2)


def read_slots(connection: KafkaConnection, topic: str) -> dict[str, Announcement]:
    """What every slot holds now."""
    slots = Slots(connection, topic)
    try:
        return slots.current
    finally:
        slots.close()


def announce_rollback(connection: KafkaConnection, topic: str) -> tuple[Announcement, Announcement]:
    """Roll back by hand: the scorers and the trainer follow the announcement. Returns (live, retired).

    Raises `NoWayBack` when no other version is kept.
    """
    slots = Slots(connection, topic)
    try:
        return slots.roll_back()
    finally:
        slots.close()
