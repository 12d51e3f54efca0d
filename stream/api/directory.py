"""The directory: which instance answers for each partition, in the small compacted topic `api-instances`.

An instance announces itself for a partition once its copies are complete. The directory only says which instance to
ask. That instance checks its own copy before it answers, so an outdated entry causes a 503, never a wrong list.
"""

from __future__ import annotations

import logging
import time

import msgspec
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from stream.clients.bulk_producer import close_producer
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader

__all__ = ["Directory", "Instance"]

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0  # least time between two announcements for one partition


class Instance(msgspec.Struct, frozen=True):
    """`api-instances`, keyed by the number of the partition."""

    partition: int
    instance: str  # new with every start
    address: str  # http://host:port


_entry = msgspec.json.Decoder(Instance)


class Directory:
    """One thread calls the methods; any thread reads `current`."""

    def __init__(self, connection: KafkaConnection, topic: str, instance: str, address: str) -> None:
        self._instance, self._address = instance, address
        self._tp = TopicPartition(topic, 0)
        self.current: dict[int, Instance] = {}
        self._announced: dict[int, float] = {}
        self._reader = TopicReader(connection, wait_seconds=0.25)
        self._reader.assign([self._tp])
        self._reader.to_beginning()
        self._producer = KafkaProducer(
            **connection.kafka_python(),
            acks="all",
            request_timeout_ms=5_000,
            delivery_timeout_ms=6_000,
            max_block_ms=1_000,
        )

    def poll(self) -> None:
        """Take in new announcements."""
        for records in self._reader.poll(0.0).values():
            for record in records:
                self._take(record.key, record.value)

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        if value is None:
            if key is not None and key.isdigit():
                self.current.pop(int(key), None)
            return
        try:
            entry = _entry.decode(value)
        except msgspec.DecodeError as error:
            log.error("%s: an entry under %r is ignored: %s", self._tp.topic, key, error)
            return
        self.current[entry.partition] = entry

    def is_ours(self, partition: int) -> bool:
        entry = self.current.get(partition)
        return entry is not None and entry.instance == self._instance

    def elsewhere(self, partition: int) -> str | None:
        """Address of another instance that answers for a partition."""
        entry = self.current.get(partition)
        return None if entry is None or entry.instance == self._instance else entry.address

    def announce(self, partition: int) -> None:
        """Announce that this instance answers for a partition, unless the directory has that or it was just sent."""
        now = time.monotonic()
        if self.is_ours(partition) or now - self._announced.get(partition, float("-inf")) < _AGAIN_SECONDS:
            return
        self._announced[partition] = now
        value = msgspec.json.encode(Instance(partition, self._instance, self._address))
        try:
            self._producer.send(self._tp.topic, value, key=b"%d" % partition, partition=0)
        except KafkaError as error:  # the next call announces it again
            log.warning("partition %d is not announced: %s: %s", partition, type(error).__name__, error)

    def close(self) -> None:
        self._reader.close()
        close_producer(self._producer, 2)
