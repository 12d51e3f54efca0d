"""The topic `examples`: scorers write which candidate of a list the user met next; the trainer trains the reranker.

A record holds features only: it names neither the user nor an item, so forgetting a user leaves it as it is.
"""

from __future__ import annotations

import logging
import zlib
from collections import deque
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from model.rerank.counts import CountsConfig
from model.rerank.features import USER_FEATURES, feature_names
from model.rerank.reranker import Examples
from stream.clients.bulk_producer import close_producer
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader

__all__ = ["ExampleReader", "ExampleSender", "decode_examples", "encode_examples"]

log = logging.getLogger(__name__)

_PARTITION = 0


def _layout() -> int:
    """A 32-bit checksum of the feature names: records with other features, of another release, are ignored."""
    return zlib.crc32(repr((feature_names(CountsConfig()), USER_FEATURES)).encode())


class _Record(msgspec.Struct, array_like=True, frozen=True):
    """One question. Numbers are little-endian."""

    layout: int
    items: bytes  # float16 [M, F]
    users: bytes  # float32 [G]
    valid: bytes  # bool [M]
    answer: int  # place of the item that came next, -1 if it was no candidate
    modelled: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Record)


def encode_examples(examples: Examples) -> Iterator[bytes]:
    """One record for each question."""
    layout = _layout()
    items, users = examples.items.astype("<f2"), examples.users.astype("<f4")
    for row in range(len(examples)):
        width = int(examples.valid[row].sum())  # candidates stand in front
        yield _encoder.encode(
            _Record(
                layout,
                items[row, :width].tobytes(),
                users[row].tobytes(),
                examples.valid[row, :width].tobytes(),
                int(examples.answers[row]),
                int(examples.modelled[row]),
            )
        )


def decode_examples(values: Iterable[bytes]) -> Examples | None:
    """The examples that `encode_examples` wrote, in order; None when there are none. Records with other features are
    left out, and so are unreadable ones, whose number is logged."""
    layout, features = _layout(), len(feature_names(CountsConfig()))
    records: list[_Record] = []
    unreadable = 0
    for value in values:
        try:
            record = _decoder.decode(value)
        except msgspec.DecodeError:
            unreadable += 1
            continue
        if record.layout == layout and len(record.valid):
            records.append(record)
    if unreadable:
        log.warning("%d records are no examples", unreadable)
    if not records:
        return None
    width = max(len(record.valid) for record in records)
    items = np.zeros((len(records), width, features), dtype=np.float16)
    valid = np.zeros((len(records), width), dtype=bool)
    for row, record in enumerate(records):
        items[row, : len(record.valid)] = np.frombuffer(record.items, "<f2").reshape(-1, features)
        valid[row, : len(record.valid)] = np.frombuffer(record.valid, bool)
    return Examples(
        items,
        np.frombuffer(b"".join(record.users for record in records), "<f4").reshape(len(records), -1),
        valid,
        np.array([record.answer for record in records], dtype=np.int64),
        np.array([record.modelled for record in records], dtype=np.int64),
    )


class ExampleSender:
    """A single example has little value, so the sender raises no `KafkaError`: examples are lost while brokers are
    away."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self._topic = topic
        self._producer = KafkaProducer(**connection.kafka_python(), acks=1, linger_ms=50, max_block_ms=2_000)

    def send(self, parts: Iterable[Examples]) -> None:
        try:
            for examples in parts:
                for value in encode_examples(examples):
                    self._producer.send(self._topic, value, partition=_PARTITION)
        except KafkaError as error:
            log.warning("examples are lost: %s: %s", type(error).__name__, error)

    def close(self) -> None:
        close_producer(self._producer, 2)


class ExampleReader:
    """The newest `most` examples of the topic, read from its beginning without a group."""

    def __init__(self, connection: KafkaConnection, topic: str, most: int) -> None:
        self._values: deque[bytes] = deque(maxlen=most)
        self._reader = TopicReader(connection)
        self._reader.assign([TopicPartition(topic, _PARTITION)])
        self._reader.to_beginning()

    def poll(self) -> None:
        """Take in new records."""
        for records in self._reader.poll().values():
            self._values.extend(record.value for record in records if record.value is not None)

    def examples(self) -> Examples | None:
        """The examples read so far, in order."""
        return decode_examples(self._values)

    def close(self) -> None:
        self._reader.close()
