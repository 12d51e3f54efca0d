"""The copy of the topic `item-lists`, for pages that belong to no user; every instance has all of it.

A thread of its own copies the topic into RocksDB. The copy is used once it has reached the end that the topic had when
the instance started. While the topic cannot be read, the lists grow older; each answer gives the age of its list.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError

from state.store import Store, StoreConfig, StoreMemory
from stream.api.problems import Unavailable
from stream.clients.admin import admin_client, offset_range, topic_identity
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.changelog import open_store
from stream.wire.item_lists import ItemList, decode_item_list
from stream.wire.topics import TopicPlan

__all__ = ["ItemListCopy"]

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_RECORDS = 2_000  # read at once


class ItemListCopy:
    """`run` is the body of the copying thread; any thread may call `read`."""

    def __init__(self, folder: Path, connection: KafkaConnection, plan: TopicPlan, config: StoreConfig) -> None:
        self._folder, self._connection, self._plan, self._config = folder, connection, plan, config
        self._store: Store | None = None  # once it is level
        self._lock = threading.Lock()  # a store must not be closed under a reader

    @property
    def level(self) -> bool:
        """Whether the copy is complete enough to be used."""
        return self._store is not None

    def read(self, name: str) -> ItemList | None:
        """The newest list of this name. Raises `Unavailable` while the copy is being made."""
        key = name.encode()
        with self._lock:
            if self._store is None:
                raise Unavailable("the lists of items are being brought here")
            (value,) = self._store.get_many([key])
        if value is None:
            return None
        try:
            return decode_item_list(key, value)
        except msgspec.DecodeError as error:  # somebody else writes to the topic
            log.error("%s, list %r: %s", self._plan.item_lists, name[:80], error)
            return None

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`. Raises what makes the copy unusable."""
        tp = TopicPartition(self._plan.item_lists, 0)
        with admin_client(self._connection) as admin:
            low, end = offset_range(admin, tp)
            identity = topic_identity(admin, tp.topic) | {"content": "item lists"}
        memory, now_ms = StoreMemory(self._config), int(time.time() * 1000)
        store = open_store(self._folder, identity, memory, low, end, self._plan.tombstone_ms, now_ms)
        try:
            with TopicReader(self._connection, poll_records=_RECORDS, when_lost="none") as reader:
                reader.assign([tp])
                reader.seek(tp, low if store.next_offset is None else max(store.next_offset, low))
                self._follow(reader, tp, store, end, stop)
        finally:
            with self._lock:
                self._store = None
                store.close()

    def _follow(self, reader: TopicReader, tp: TopicPartition, store: Store, end: int, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                polled = reader.poll(_POLL_SECONDS)
            except KafkaError as error:
                if not error.retriable:
                    raise
                log.warning("%s is not read: %s: %s", tp.topic, type(error).__name__, error)
                stop.wait(_POLL_SECONDS)
                continue
            for records in polled.values():
                values = {record.key: record.value for record in records if record.key is not None}
                store.write(values, records[-1].offset + 1, int(time.time() * 1000))
            if self._store is None and reader.position(tp) >= end:
                self._store = store
