"""The compacted topic `pilots`, with pilots and their counts, which every process may read.

    pilot NAME                  JSON, `Pilot`: written by the operator who starts, moves or ends it
    stop NAME VARIANT           JSON, `Stop`: written by the guardrail
    counts NAME STAGE WORKER    MessagePack, `Counts`: written by a scorer, over and over

Each kind of key has one kind of writer, so that an operator who moves a pilot and the guardrail that stops a variant at
the same moment never undo each other: the pilot together with its stops is valid. Each step writes one record, and the
order of records does not matter: a stop or counts without their pilot have no effect.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TypeVar

import msgspec
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from stream.clients.bulk_producer import close_producer
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.pilots.counts import Counts
from stream.pilots.pilot import Pilot, Stop

__all__ = ["PARTITION", "PilotReader", "PilotSender", "Pilots", "write_pilot", "write_stop"]

log = logging.getLogger(__name__)

PARTITION = 0

_ACKNOWLEDGED_SECONDS = 20.0

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_pilot = msgspec.json.Decoder(Pilot)
_stop = msgspec.json.Decoder(Stop)


class Pilots:
    """The content of the topic, read record by record. Without `counted` no counts are kept; lists need none."""

    def __init__(self, counted: bool = True) -> None:
        self._counted = counted
        self._pilots: dict[str, Pilot] = {}
        self._stops: dict[str, dict[str, Stop]] = {}  # by pilot and variant
        self._counts: dict[str, dict[bytes, Counts]] = {}  # by pilot and key

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Read one record; call it in the order of the topic. A record that cannot be read is logged. If it is a pilot,
        that pilot is not served from then on: a later release may have settings that this one does not know."""
        kind, _, rest = (key or b"").decode(errors="replace").partition(" ")
        name, _, rest = rest.partition(" ")
        try:
            if kind == "counts" and key is not None:
                if self._counted:
                    self._put(self._counts.setdefault(name, {}), key, None if value is None else Counts.decode(value))
            elif kind == "stop":
                self._put(self._stops.setdefault(name, {}), rest, None if value is None else _stop.decode(value))
            elif kind == "pilot":
                self._put(self._pilots, name, None if value is None else _pilot.decode(value))
            else:
                log.warning("a record of another kind: key %r", key)
        except msgspec.DecodeError as error:
            log.error("record %r of the pilots cannot be read: %s", key, error)
            if kind == "pilot":
                self._pilots.pop(name, None)

    @staticmethod
    def _put(into: dict[_Key, _Value], key: _Key, value: _Value | None) -> None:
        if value is None:
            into.pop(key, None)
        else:
            into[key] = value

    def __getitem__(self, name: str) -> Pilot:
        """The pilot with its stops. Raises `KeyError`."""
        return msgspec.structs.replace(self._pilots[name], stops=dict(self._stops.get(name, {})))

    @property
    def names(self) -> list[str]:
        """The names of all pilots, in the order in which they were started."""
        return sorted(self._pilots, key=lambda name: (self._pilots[name].started_ms, name))

    @property
    def running(self) -> Pilot | None:
        """The pilot that serves variants now; of several that were started at the same moment, the last one."""
        found = [pilot for name in self.names if (pilot := self[name]).running]
        return found[-1] if found else None

    @property
    def current(self) -> Pilot | None:
        """The newest pilot that was not ended: it runs, or the guardrail stopped all its variants."""
        found = [pilot for name in self.names if not (pilot := self[name]).ended]
        return found[-1] if found else None

    def counts(self, name: str) -> list[Counts]:
        return list(self._counts.get(name, {}).values())


class PilotReader:
    """Follows the topic without a group, on its owner's thread."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self.pilots = Pilots()
        self._reader = TopicReader(connection, wait_seconds=0.1)
        self._reader.assign([TopicPartition(topic, PARTITION)])
        self._reader.to_beginning()
        for record in self._reader.read_to_end():
            self.pilots.take(record.key, record.value)

    def poll(self) -> bool:
        """Read new records; returns whether there were any."""
        polled = self._reader.poll()
        for records in polled.values():
            for record in records:
                self.pilots.take(record.key, record.value)
        return bool(polled)

    def close(self) -> None:
        self._reader.close()


class PilotSender:
    """Sends the counts of a scorer. `send` raises no `KafkaError`: lost totals are replaced by the next ones.

    `open` is called when there is a pilot, from a thread that no other waits for, so that a scorer without pilots has
    no producer.
    """

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._connection, self._topic = connection, topic
        self._producer: KafkaProducer | None = None

    def open(self) -> None:
        if self._producer is None:
            producer = KafkaProducer(**self._connection.kafka_python(), acks=1, linger_ms=50, max_block_ms=2_000)
            producer.partitions_for(self._topic)
            self._producer = producer

    def send(self, counts: Iterable[Counts]) -> None:
        for one in counts:
            if self._producer is None:
                return
            try:
                sent = self._producer.send(self._topic, one.encode(), key=_counts_key(one), partition=PARTITION)
            except KafkaError as error:
                _warn(error)
            else:
                sent.add_errback(_warn)

    def close(self) -> None:
        if self._producer is not None:
            close_producer(self._producer, 2)


def _warn(error: BaseException) -> None:
    log.warning("counts of the pilot wait: %s: %s", type(error).__name__, error)


def _counts_key(counts: Counts) -> bytes:
    return f"counts {counts.pilot} {counts.stage} {counts.worker}".encode()


def write_pilot(connection: KafkaConnection, topic: str, pilot: Pilot) -> None:
    """Write a pilot without its stops, and wait for the acknowledgement. Raises `KafkaError`."""
    _write(connection, topic, f"pilot {pilot.name}", msgspec.json.encode(msgspec.structs.replace(pilot, stops={})))


def write_stop(connection: KafkaConnection, topic: str, pilot: str, variant: str, stop: Stop) -> None:
    """Write the stop of a variant, and wait for the acknowledgement. Raises `KafkaError`."""
    _write(connection, topic, f"stop {pilot} {variant}", msgspec.json.encode(stop))


def _write(connection: KafkaConnection, topic: str, key: str, value: bytes) -> None:
    producer = KafkaProducer(**connection.kafka_python(), acks="all", metrics_enabled=False)
    try:
        producer.send(topic, value, key=key.encode(), partition=PARTITION).get(timeout=_ACKNOWLEDGED_SECONDS)
    finally:
        producer.close(timeout=2)
