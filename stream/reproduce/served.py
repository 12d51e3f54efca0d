"""Finds lists on `recommendations`: the last one of each user up to a given time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.leaving.folder import LeavingError
from stream.leaving.snapshot import Progress, read_between
from stream.wire.made import Made
from stream.wire.newest import newest_records
from stream.wire.records import Recommendation
from stream.wire.topics import TopicPlan

__all__ = ["Served", "ServedLists", "find_lists"]


class Served(NamedTuple):
    """A record of `recommendations` that is a list."""

    user: bytes
    partition: int
    offset: int
    written_ms: int
    list: Recommendation
    made: Made | None  # None: by a release that did not store it

    @property
    def place(self) -> str:
        return f"{self.partition}@{self.offset}"


class ServedLists(NamedTuple):
    lists: dict[bytes, Served]  # by user
    forgotten: set[bytes]  # users whose last record up to the given time is a deletion
    only_later: dict[bytes, int]  # users with later records only: time of the first; compaction may have removed others
    unreadable: list[str]


_decoder = msgspec.json.Decoder(Recommendation)


def find_lists(
    connection: KafkaConnection, plan: TopicPlan, until_ms: int | None, user: bytes | None, progress: Progress
) -> ServedLists:
    """The last list of every user, or of one user, that was written up to `until_ms`; None for the newest.

    Compaction removes a record only together with all older ones of its key. So the last remaining record up to the
    given time was the last one at that time. Raises `LeavingError` when there is no topic.
    """
    later: dict[bytes, int] = {}
    records = _records(connection, plan.recommendations, lambda key: user is None or key == user, progress)
    last = newest_records(one for _, one in records if until_ms is None or one.timestamp <= until_ms)
    for key, one in records:
        if until_ms is not None and one.timestamp > until_ms:
            later.setdefault(key, one.timestamp)
    found = ServedLists({}, set(), {key: ms for key, ms in later.items() if key not in last}, [])
    for key, record in last.items():
        if record.value is None:
            found.forgotten.add(key)
            continue
        try:
            listed = _decoder.decode(record.value)
        except msgspec.DecodeError as error:
            found.unreadable.append(f"{record.partition}@{record.offset}: {error}")
            continue
        made = Made.from_headers(record.headers)
        found.lists[key] = Served(key, record.partition, record.offset, record.timestamp, listed, made)
    return found


def _records(
    connection: KafkaConnection, topic: str, wanted: Callable[[bytes], bool], progress: Progress
) -> list[tuple[bytes, ConsumerRecord]]:
    """The records with a wanted key, sorted by partition and offset."""
    kept: list[tuple[bytes, ConsumerRecord]] = []
    with TopicReader(connection, poll_records=5_000, fetch_bytes=4 * 1024 * 1024) as reader:
        partitions = reader.partitions(topic)
        if not partitions:
            raise LeavingError(f"there is no topic {topic}: are the servers and --prefix right?")
        reader.assign(partitions)
        begins, ends = reader.beginnings(partitions), reader.ends(partitions)
        todo = sum(ends[tp] - begins[tp] for tp in partitions)
        for left, batch in read_between(reader, begins, ends):
            kept += [(record.key, record) for record in batch if record.key is not None and wanted(record.key)]
            progress(topic, todo - left, todo)
    return sorted(kept, key=lambda pair: (pair[1].partition, pair[1].offset))
