"""Follows the topic `items` in a thread beside the traffic."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from kafka import TopicPartition

from ops.labels import RejectionReason
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.items import ItemRecord, decode_item
from stream.wire.records import InputRecord, Rejected

__all__ = ["ItemFollower"]

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_RETRY_SECONDS = 5.0
_RECORDS = 5_000  # read at once


class ItemFollower:
    """Calls `changed` with new records, by item. It reads all of the topic without a group, because every process that
    makes or shows lists needs all items.

    A record that cannot be used changes nothing: it stays in the topic, `rejected` counts it, and the first one of each
    reason is logged. The same thread follows the small topics of `beside`, and calls each topic's function with its
    records.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        topic: str,
        rejected: Callable[[RejectionReason], None],
        changed: Callable[[Mapping[str, ItemRecord | None]], None],
        beside: Mapping[str, Callable[[Sequence[InputRecord]], None]] | None = None,
    ) -> None:
        self._connection, self._topic, self._rejected, self._changed = connection, topic, rejected, changed
        self.next_offset = 0  # of the topic's one partition: the records before it were decoded
        self._beside = beside or {}
        self._reported: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="items", daemon=True)

    def start(self) -> None:
        """Take in all records that the topic has now, then follow it in a thread."""
        self._reader = self._open()
        ends = dict(self._reader.ends(self._partitions(self._reader)))
        while any(self._reader.position(tp) < end for tp, end in ends.items()):
            self._poll()
        self._thread.start()

    def _open(self) -> TopicReader:
        reader = TopicReader(self._connection, poll_records=_RECORDS, wait_seconds=_POLL_SECONDS)
        reader.assign(self._partitions(reader))
        reader.to_beginning()
        return reader

    def _partitions(self, reader: TopicReader) -> list[TopicPartition]:
        return [tp for topic in (self._topic, *self._beside) for tp in reader.partitions(topic)]

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self._poll()
            except Exception:  # lists are made with the items known so far
                log.exception("following %s failed, trying again", self._topic)
                self._stop.wait(_RETRY_SECONDS)

    def _poll(self) -> None:
        changes: dict[str, ItemRecord | None] = {}
        for tp, records in self._reader.poll(_POLL_SECONDS).items():
            if tp.topic in self._beside:
                self._beside[tp.topic](records)
                continue
            for record in records:
                try:
                    item, said = decode_item(record.key, record.value)
                except Rejected as error:
                    self._rejected(error.reason)
                    if error.reason not in self._reported:
                        self._reported.add(error.reason)
                        log.error("%s/%d@%d says nothing of an item: %s", *tp, record.offset, error)
                    continue
                changes[item], self.next_offset = said, record.offset + 1
        if changes:
            self._changed(changes)

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2)
        self._reader.close()
