"""Which models are in service: the slots of the compacted topic `models`.

    live       the model that scorers serve
    candidate  the canary, which is served to a share of the users before it may go live; usually empty
    previous   the model that was live before, kept for a rollback
    retired    the last model that was rolled back; never a parent again

Slots that change together are written in one transaction, so that no reader sees a part of a step. Writers with one
name exclude each other: opening a writer ends an open transaction of a killed predecessor, and fences a predecessor
that still runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import msgspec
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import ConsumerRecord

from stream.clients.bulk_producer import TransactionalProducer, close_producer, has_successor
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.records import CANARY_SLOT, Announcement, Rejected

__all__ = ["Changes", "NoWayBack", "SlotWriter", "Slots", "announce_rollback", "promotion", "read_slots", "rollback"]

log = logging.getLogger(__name__)

Changes = Mapping[str, Announcement | None]  # the new content by slot; None empties a slot

_ACKNOWLEDGED_SECONDS = 20.0
_TRANSACTION_MS = 10_000  # the longest time for which an open transaction of a killed writer hides later moves


class NoWayBack(RuntimeError):
    """There is no other model to go back to."""


class Slots:
    """Follows `models`: `current` and the properties are the state after the last `poll`."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._tp = TopicPartition(topic, 0)
        self.current: dict[str, Announcement] = {}
        self.live_offset = -1  # of the newest announcement of a live model; every reader finds it or a later one
        self._reader = TopicReader(connection, wait_seconds=0.1)
        self._reader.assign([self._tp])
        self._reader.to_beginning()
        self.catch_up()

    @property
    def live(self) -> Announcement | None:
        return self.current.get("live")

    @property
    def canary(self) -> Announcement | None:
        return self.current.get(CANARY_SLOT)

    @property
    def previous(self) -> Announcement | None:
        return self.current.get("previous")

    @property
    def retired(self) -> Announcement | None:
        return self.current.get("retired")

    def catch_up(self) -> None:
        """Read to the end of the topic as it is now. Raises `KafkaTimeoutError` when the brokers do not answer."""
        for record in self._reader.read_to_end():
            self._take(record)

    def poll(self, timeout_seconds: float = 0.0) -> bool:
        """Read new announcements; True when a slot changed."""
        moved = False
        for records in self._reader.poll(timeout_seconds).values():
            for record in records:
                moved |= self._take(record)
        return moved

    def _take(self, record: ConsumerRecord) -> bool:
        slot = (record.key or b"").decode(errors="replace")
        before = self.current.get(slot)
        if record.value is None:
            self.current.pop(slot, None)
        else:
            if slot == "live":
                self.live_offset = record.offset
            try:
                self.current[slot] = Announcement.decode(record.value)
            except Rejected as error:
                log.error("%s: slot %r keeps its model: %s", self._tp.topic, slot, error)
        return self.current.get(slot) != before

    def close(self) -> None:
        self._reader.close()


class SlotWriter(Slots):
    """Also writes slots. `name` is part of the transactional id: a second writer of the same name fences the first."""

    def __init__(self, connection: KafkaConnection, topic: str, name: str = "operator") -> None:
        self._transactional_id = f"{topic}-{name}"
        self._producer = TransactionalProducer(
            **connection.kafka_python(),
            acks="all",
            request_timeout_ms=_TRANSACTION_MS // 2,
            delivery_timeout_ms=_TRANSACTION_MS,
            transactional_id=self._transactional_id,
            transaction_timeout_ms=_TRANSACTION_MS,
            metrics_enabled=False,
        )
        try:
            # Before the topic is read: a predecessor's transaction is then committed or aborted, and stays so.
            self._producer.init_transactions()
            super().__init__(connection, topic)
        except BaseException:
            close_producer(self._producer, 2)
            raise

    def move(self, changes: Changes, crash: Callable[[], None] = lambda: None) -> None:
        """Change these slots together, and wait for the commit. Raises `KafkaError` when it fails.

        `crash` is called between sending the records and the commit.
        """
        named = {slot: None if to is None else msgspec.structs.replace(to, slot=slot) for slot, to in changes.items()}
        producer, tp = self._producer, self._tp
        producer.begin_transaction()
        try:
            futures = [
                producer.send(
                    tp.topic, None if to is None else msgspec.json.encode(to), key=slot.encode(), partition=tp.partition
                )
                for slot, to in named.items()
            ]
            producer.flush(timeout=_ACKNOWLEDGED_SECONDS)
            for future in futures:  # flush does not raise for a record that failed
                future.get(timeout=_ACKNOWLEDGED_SECONDS)
            crash()
            producer.commit_transaction()
        except Exception:
            producer.abort_transaction()
            raise
        for slot, to in named.items():
            if to is None:
                self.current.pop(slot, None)
            else:
                self.current[slot] = to

    def has_successor(self, admin: KafkaAdminClient) -> bool:
        """Whether another writer of this name has begun since; this one can then write no more. Raises `KafkaError`."""
        return has_successor(self._producer, self._transactional_id, admin)

    def put(self, slot: str, announcement: Announcement) -> None:
        """Fill one slot."""
        self.move({slot: announcement})

    def close(self) -> None:
        super().close()
        close_producer(self._producer, 2)


def promotion(current: Mapping[str, Announcement], announcement: Announcement) -> Changes:
    """The changes that promote this model: the live one is kept as `previous`, and the canary's slot is emptied."""
    changes: dict[str, Announcement | None] = {"live": msgspec.structs.replace(announcement, share=0.0)}
    if "live" in current:
        changes["previous"] = current["live"]
    if CANARY_SLOT in current:
        changes[CANARY_SLOT] = None
    return changes


def rollback(current: Mapping[str, Announcement]) -> Changes:
    """The changes that make `previous` live again. Raises `NoWayBack`."""
    bad, good = current.get("live"), current.get("previous")
    if bad is None:
        raise NoWayBack("no model is live: there is nothing to roll back")
    if good is None or good.version == bad.version:
        raise NoWayBack(f"{bad.version} is live and no earlier version is kept: train a new one, or publish one")
    changes: dict[str, Announcement | None] = {"live": good, "retired": bad}
    if CANARY_SLOT in current:
        changes[CANARY_SLOT] = None
    return changes


def read_slots(connection: KafkaConnection, topic: str) -> dict[str, Announcement]:
    """The current content of every slot."""
    slots = Slots(connection, topic)
    try:
        return slots.current
    finally:
        slots.close()


def announce_rollback(connection: KafkaConnection, topic: str) -> tuple[Announcement, Announcement]:
    """Roll back by hand: the scorers and the trainer follow the announcement. Returns (live, retired).

    Raises `NoWayBack` when no other version is kept.
    """
    slots = SlotWriter(connection, topic)
    try:
        slots.move(rollback(slots.current))
        return slots.current["live"], slots.current["retired"]
    finally:
        slots.close()
