"""What the topic `items` said up to one of its offsets, as far as compaction has left it."""

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
    said: list[tuple[int, str, ItemRecord | None]]  # offset, item, what a record says of it; in order
    whole: bool  # nothing was compacted away

    def between(self, offset: int, next_offset: int) -> dict[str, ItemRecord | None]:
        """By item, the last that was said from one offset to before another."""
        first, following = (bisect_left(self.said, at, key=lambda one: one[0]) for at in (offset, next_offset))
        return {item: said for _, item, said in self.said[first:following]}

    def unknown(self, next_offset: int) -> set[str]:
        """Items of which records before this offset may have been compacted away: those that only later ones name."""
        if self.whole:
            return set()
        before = {item for offset, item, _ in self.said if offset < next_offset}
        return {item for offset, item, _ in self.said if offset >= next_offset} - before

    def barred(self, user: bytes, first_offset: int, made_ms: int, until_ms: int) -> set[str]:
        """Items that were not listed to a user at some moment between, by a record from `first_offset` on or because
        their time had ended."""
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
    """The whole topic; nothing when there is none."""
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
                except Rejected:  # it said nothing then, either
                    continue
            progress(topic, todo - left, todo)
    return ItemLog(sorted(said, key=lambda one: one[0]), seen == sum(ends.values()))
