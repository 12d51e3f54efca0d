"""Writes `item-lists`, and knows the lists on the topic.

Lists that are written together are one transaction. A writer first initialises its transactional id, which ends an open
transaction of a killed predecessor and fences a predecessor that still runs. Only then it reads the topic, so its
`known` lists are those on the topic, and no other process changes them. A process that is killed before the commit
leaves the old lists, one that is killed after it the new lists.
"""

from __future__ import annotations

import logging
import sys
from array import array
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError

from stream.clients.bulk_producer import bulk_producer, close_producer, was_fenced
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.item_lists import ItemList, decode_item_list
from stream.wire.records import ScoredItem

__all__ = ["ItemListWriter", "KnownList"]

log = logging.getLogger(__name__)

_LIST_BYTES = 1024 * 1024
_ACKNOWLEDGED_SECONDS = 10.0


class KnownList(NamedTuple):
    """A list of the topic, in a form that needs little memory."""

    items: tuple[str, ...]
    scores: array[float]
    model: str
    as_of: int

    @classmethod
    def of(cls, found: ItemList) -> KnownList:
        scores = array("d", [scored.score for scored in found.items])
        return cls(tuple(sys.intern(scored.item) for scored in found.items), scores, found.model, found.as_of)

    def scored(self) -> tuple[ScoredItem, ...]:
        return tuple(map(ScoredItem, self.items, self.scores))


class ItemListWriter:
    """`known` are the lists of the topic by name. `crash` is called between sending records and the commit."""

    def __init__(self, connection: KafkaConnection, topic: str, crash: Callable[[], None] = lambda: None) -> None:
        self._topic, self._crash = topic, crash
        self.known: dict[str, KnownList] = {}
        self._producer = bulk_producer(
            connection,
            _LIST_BYTES,
            request_timeout_ms=5_000,
            delivery_timeout_ms=10_000,
            max_block_ms=10_000,
            transactional_id=f"{topic}-trainer",
            transaction_timeout_ms=10_000,
        )
        try:
            self._producer.init_transactions()
            self._read(connection)
        except BaseException:
            self.close()
            raise

    def _read(self, connection: KafkaConnection) -> None:
        with TopicReader(connection, poll_records=5_000) as reader:
            reader.assign([TopicPartition(self._topic, 0)])
            reader.to_beginning()
            for record in reader.read_to_end():
                if record.key is None:
                    continue
                name = record.key.decode(errors="replace")
                self.known.pop(name, None)
                if record.value is not None:
                    try:
                        self.known[name] = KnownList.of(decode_item_list(record.key, record.value))
                    except msgspec.DecodeError as error:
                        log.error("%s/0@%d is no list and is written again: %s", self._topic, record.offset, error)

    def write(self, lists: Mapping[str, ItemList | None]) -> bool:
        """Write all of these lists or none; None removes a list. False when the brokers did not accept them; the call
        may be repeated. Raises `KafkaError` when another writer has begun, or no more can be written."""
        producer = self._producer
        producer.begin_transaction()
        try:
            futures = [
                producer.send(self._topic, None if found is None else found.encode(), key=name.encode(), partition=0)
                for name, found in lists.items()
            ]
            producer.flush(timeout=_ACKNOWLEDGED_SECONDS)
            for future in futures:  # flush does not raise for a record that failed
                future.get(timeout=_ACKNOWLEDGED_SECONDS)
            self._crash()
            producer.commit_transaction()
        except KafkaError as error:
            if was_fenced(error):
                raise
            log.warning("%d lists are not written yet: %s: %s", len(lists), type(error).__name__, error)
            producer.abort_transaction()
            return False
        for name, found in lists.items():
            if found is None:
                self.known.pop(name, None)
            else:
                self.known[name] = KnownList.of(found)
        return True

    def close(self) -> None:
        close_producer(self._producer, 2)
