"""Restores the stores of assigned partitions from the changelog, until they hold all that former owners wrote."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from kafka import TopicPartition
from kafka.errors import OffsetOutOfRangeError

from state.store import Store, StoreMemory
from stream.clients.admin import admin_client, offset_range, topic_identity
from stream.clients.connection import KafkaConnection
from stream.updater.store_folder import StoreFolder
from stream.wire.changelog import changelog_reader, open_store

__all__ = ["Restorer"]

log = logging.getLogger(__name__)

_LOG_EVERY_SECONDS = 10.0


@dataclass
class _Restore:
    store: Store
    end: int  # high watermark at the start
    records: int = 0


class Restorer:
    """Restores any number of partitions of one changelog side by side, a step at a time.

    Between the steps the caller polls its own consumer, so that it stays in the group and goes on working on the
    running partitions. The caller closes the stores; before it closes one, it calls `abandon`.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        topic: str,
        folder: StoreFolder,
        memory: StoreMemory,
        tombstone_ms: int,
        clock_ms: Callable[[], int],
    ) -> None:
        self._topic, self._folder, self._memory = topic, folder, memory
        self._tombstone_ms, self._clock_ms = tombstone_ms, clock_ms
        self._admin = admin_client(connection)
        self._reader = changelog_reader(connection)
        self._identity = topic_identity(self._admin, topic)
        self._restores: dict[TopicPartition, _Restore] = {}
        self._logged = time.monotonic()

    def __bool__(self) -> bool:
        """There are partitions to restore."""
        return bool(self._restores)

    def begin(self, number: int) -> Store:
        """Open a partition's store and queue its restore."""
        tp = TopicPartition(self._topic, number)
        low, end = offset_range(self._admin, tp)
        identity = self._identity | {"partition": str(number)}
        path = self._folder.take(number)
        store = open_store(path, identity, self._memory, low, end, self._tombstone_ms, self._clock_ms())
        start = store.next_offset
        self._restores[tp] = _Restore(store, end)
        self._reader.assign(self._restores)
        self._reader.seek(tp, low if start is None else max(start, low))
        log.info("%s/%d: restoring offsets %s to %d", *tp, "from the beginning" if start is None else start, end)
        return store

    def step(self, timeout_seconds: float = 0.1) -> list[int]:
        """Read some more; returns the partitions whose stores have caught up."""
        try:
            polled = self._reader.poll(timeout_seconds) if self._behind() else {}
        except OffsetOutOfRangeError:
            # Compaction or retention moved the beginning meanwhile: the removed records were superseded or had expired.
            self._reader.to_beginning()
            return []
        for tp, records in polled.items():
            restore = self._restores[tp]
            restore.store.write({record.key: record.value for record in records if record.key is not None})
            restore.records += len(records)
        done = []
        for tp, restore in list(self._restores.items()):
            position = self._reader.position(tp)
            if position >= restore.end:
                restore.store.write({}, next_offset=position, now_ms=self._clock_ms())
                log.info("%s/%d: caught up at offset %d, %d records", *tp, position, restore.records)
                done.append(tp.partition)
        for number in done:
            self.abandon(number)
        if self._restores and time.monotonic() - self._logged > _LOG_EVERY_SECONDS:
            self._logged = time.monotonic()
            for tp, restore in self._restores.items():
                log.info("%s/%d: %d of %d", *tp, self._reader.position(tp), restore.end)
        return done

    def _behind(self) -> bool:
        return any(self._reader.position(tp) < restore.end for tp, restore in self._restores.items())

    def abandon(self, number: int) -> None:
        """Stop reading a partition. The records that were written to its store so far stay useful."""
        if self._restores.pop(TopicPartition(self._topic, number), None) is not None:
            self._reader.assign(self._restores)

    def close(self) -> None:
        self._reader.close()
        self._admin.close()
