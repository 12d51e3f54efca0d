"""The content of the topic `items` at one of its offsets, as far as compaction has left the records."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.leaving.snapshot import Progress, read_between
from stream.wire.items import ItemRecord, decode_item
from stream.wire.records import Rejected

__all__ = ["ItemLog", "read_items"]


class ItemLog(NamedTuple):
    said: list[tuple[int, str, ItemRecord | None]]  # offset, item, its record (None: deleted); in order
    whole: bool  # nothing was compacted away

    def between(self, offset: int, next_offset: int) -> dict[str, ItemRecord | None]:
        """The last record by item, from `offset` to before `next_offset`."""
        first, following = (bisect_left(self.said, at, key=lambda one: one[0]) for at in (offset, next_offset))
        return {item: said for _, item, said in self.said[first:following]}

    def unknown(self, next_offset: int) -> set[str]:
        """Items whose records before this offset may have been compacted away: those with later records only."""
        if self.whole:
            return set()
        before = {item for offset, item, _ in self.said if offset < next_offset}
        return {item for offset, item, _ in self.said if offset >= next_offset} - before

    def barred(self, user: bytes, first_offset: int, made_ms: int, until_ms: int) -> set[str]:
        """Items that could not be listed to a user at some time from `made_ms` to `until_ms`, because of a record from
        `first_offset` on, or because their time had ended."""
        found, name = set(), user.decode()
        before: Mapping[str, ItemRecord | None] = {i: said for offset, i, said in self.said if offset < first_offset}
        later = [(item, said) for offset, item, said in self.said if offset >= first_offset]
        for item, said in [*before.items(), *later]:
            if said is not None and (
                name in said.hide_from or not (said.listable(made_ms) and said.listable(until_ms))
            ):
                found.add(item)
        return found


def read_items(connection: KafkaConnection, topic: str, progress: Progress) -> ItemLog:
    """Read the whole topic; the log is empty when there is no topic."""
    said: list[tuple[int, str, ItemRecord | None]] = []
    seen = 0
    with TopicReader(connection, poll_records=5_000) as reader:
        partitions = reader.partitions(topic)
        if not partitions:
            return ItemLog([], True)
        reader.assign(partitions)
        begins, ends = reader.beginnings(partitions), reader.ends(partitions)
        todo = sum(ends[tp] - begins[tp] for tp in partitions)
        for left, batch in read_between(reader, begins, ends):
            for record in batch:
                seen += 1
                try:
                    said.append((record.offset, *decode_item(record.key, record.value)))
                except Rejected:  # the scorer ignored this record, too
                    continue
            progress(topic, todo - left, todo)
    return ItemLog(sorted(said, key=lambda one: one[0]), seen == sum(ends.values()))
