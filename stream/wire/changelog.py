"""Local stores that mirror a compacted topic.

A store remembers the first offset that it does not cover, and reading on from there brings it up to date. A store that
is missing, corrupted, stale or of another topic starts again from the beginning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from state.store import Store, StoreLocked, StoreMemory, StoreUnusable
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader

__all__ = ["changelog_reader", "open_store"]

log = logging.getLogger(__name__)

_LOCK_TRIES = 10
_LOCK_WAIT_SECONDS = 0.5


def changelog_reader(connection: KafkaConnection) -> TopicReader:
    """A reader with large fetches. When the topic's beginning moved past its position, it raises an error, because
    reading on from the new beginning could miss deletions."""
    return TopicReader(connection, poll_records=10_000, fetch_bytes=8 * 1024 * 1024, when_lost="none")


def open_store(
    path: Path, identity: Mapping[str, str], memory: StoreMemory, low: int, end: int, tombstone_ms: int, now_ms: int
) -> Store:
    """The store at `path`, emptied when it does not open, belongs to another topic or cannot catch up.

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
        except StoreLocked as error:  # a worker that was just killed may still hold the lock
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
