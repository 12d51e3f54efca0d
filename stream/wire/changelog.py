"""Local stores brought level with the compacted topic they mirror.

A store remembers the first offset it does not cover. Restoring reads from there to the end of the topic; a store that
is missing, corrupted, stale or of another topic starts again from the beginning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import OffsetOutOfRangeError

from state.store import Store, StoreLocked, StoreMemory, StoreUnusable
from stream.clients.admin import offset_range, topic_identity
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader

__all__ = ["Restorer", "changelog_reader", "open_store"]

log = logging.getLogger(__name__)

_LOCK_TRIES = 10
_LOCK_WAIT_SECONDS = 0.5
_LOG_EVERY_SECONDS = 10.0


def changelog_reader(connection: KafkaConnection) -> TopicReader:
    """A reader for much at a time, to which a beginning that moved is an error: what was skipped may be missed."""
    return TopicReader(connection, poll_records=10_000, fetch_bytes=8 * 1024 * 1024, when_lost="none")


def open_store(
    path: Path, identity: Mapping[str, str], memory: StoreMemory, low: int, end: int, tombstone_ms: int, now_ms: int
) -> Store:
    """The store at `path`, made anew when it does not open, belongs to another topic or cannot be brought level.

    `low` and `end` are the first offset and the high watermark of its changelog partition.
    """
    try:
        store = _open_unlocked(path, identity, memory)
    except StoreUnusable as error:
        log.warning("rebuilding: %s", error)
        Store.destroy(path)
        return Store(path, identity, memory)
    why = _useless(store, low, end, tombstone_ms, now_ms)
    if why:
        log.warning("rebuilding %s: %s", path, why)
        store.close()
        Store.destroy(path)
        store = Store(path, identity, memory)
    return store


def _open_unlocked(path: Path, identity: Mapping[str, str], memory: StoreMemory) -> Store:
    for _ in range(_LOCK_TRIES):
        try:
            return Store(path, identity, memory)
        except StoreLocked as error:  # a worker that was just killed may still be on its way out
            log.info("waiting: %s", error)
            time.sleep(_LOCK_WAIT_SECONDS)
    return Store(path, identity, memory)


def _useless(store: Store, low: int, end: int, tombstone_ms: int, now_ms: int) -> str | None:
    offset, written_ms = store.next_offset, store.written_ms
    if offset is None:
        return "it has content but no offset" if next(iter(store.items()), None) else None
    if offset > end:
        return f"its offset {offset} is past the topic's end {end}"
    if offset < low:
        return f"its offset {offset} is before the topic's beginning {low}"
    if written_ms is not None and now_ms - written_ms > tombstone_ms:
        return "it is older than the topic's tombstones, so deletions may have been missed"
    return None


@dataclass
class _Restore:
    store: Store
    end: int  # high watermark at the start
    records: int = 0


class Restorer:
    """Restores any number of partitions of one changelog side by side, a step at a time.

    Stepping lets the caller keep polling its own consumer in between, so that it keeps its place in the group and
    partitions that are ready keep flowing.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        admin: KafkaAdminClient,
        topic: str,
        folder: Path,
        memory: StoreMemory,
        tombstone_ms: int,
        clock_ms: Callable[[], int],
    ) -> None:
        self._admin, self._topic, self._folder, self._memory = admin, topic, folder, memory
        self._tombstone_ms, self._clock_ms = tombstone_ms, clock_ms
        self._identity = topic_identity(admin, topic)
        self._restores: dict[TopicPartition, _Restore] = {}
        self._logged = time.monotonic()
        self._reader = changelog_reader(connection)

    def __bool__(self) -> bool:
        return bool(self._restores)

    def begin(self, partition: int) -> None:
        """Open the partition's store and queue its restore."""
        tp = TopicPartition(self._topic, partition)
        low, end = offset_range(self._admin, tp)
        identity = self._identity | {"partition": str(partition)}
        store = open_store(
            self._folder / str(partition), identity, self._memory, low, end, self._tombstone_ms, self._clock_ms()
        )
        start = store.next_offset
        self._restores[tp] = _Restore(store, end)
        self._reader.assign(list(self._restores))
        self._reader.seek(tp, low if start is None else max(start, low))
        log.info(
            "%s/%d: restoring offsets %s to %d",
            self._topic,
            partition,
            "from the beginning" if start is None else start,
            end,
        )

    def step(self, timeout_seconds: float = 0.1) -> dict[int, Store]:
        """Read some more; returns the stores that are level now, by partition. Their owner closes them."""
        try:
            polled = self._reader.poll(timeout_seconds) if self._behind() else {}
        except OffsetOutOfRangeError:
            # Compaction or retention moved the beginning while we read: what is gone was superseded or expired.
            self._reader.to_beginning()
            return {}
        for tp, records in polled.items():
            restore = self._restores[tp]
            restore.store.write({record.key: record.value for record in records if record.key is not None})
            restore.records += len(records)
        done = {}
        for tp, restore in list(self._restores.items()):
            # position, not the last record seen: it also moves over gaps of compaction and transaction markers
            position = self._reader.position(tp)
            if position >= restore.end:
                restore.store.write({}, next_offset=position, now_ms=self._clock_ms())
                log.info("%s/%d: level at offset %d, %d records", tp.topic, tp.partition, position, restore.records)
                done[tp.partition] = restore.store
                del self._restores[tp]
        if done:
            self._reader.assign(list(self._restores))
        elif time.monotonic() - self._logged > _LOG_EVERY_SECONDS:
            self._logged = time.monotonic()
            for tp, restore in self._restores.items():
                log.info("%s/%d: %d of %d", tp.topic, tp.partition, self._reader.position(tp), restore.end)
        return done

    def _behind(self) -> bool:
        return any(self._reader.position(tp) < restore.end for tp, restore in self._restores.items())

    def abandon(self, partition: int) -> None:
        """Stop restoring a partition that moved away; what was read so far stays useful."""
        restore = self._restores.pop(TopicPartition(self._topic, partition), None)
        if restore is not None:
            restore.store.close()
            self._reader.assign(list(self._restores))

    def close(self) -> None:
        for tp in list(self._restores):
            self.abandon(tp.partition)
        self._reader.close()
