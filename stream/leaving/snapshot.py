"""A compacted topic as it was at one offset per partition, collected on disk.

The offsets are the ends of the partitions when reading began, and a snapshot holds the last record of every key below
them. Compaction goes on during the reading: it may remove a record below the end that has not been read, if a newer
record of its key is beyond the end. Therefore the records beyond the end are checked afterwards. Only keys that are not
in the snapshot can be affected. If there are any, the snapshot is extended to the current end, and checked again.

If new keys come all the time, this stops after a few rounds. A record can then be missing only if it was written,
replaced and compacted during the last round. That is unlikely: a round takes fractions of a second, and compaction does
not touch the segments that are being written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaTimeoutError

from state.store import Store
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.leaving.folder import LeavingError

__all__ = ["Progress", "Snapshot", "read_between", "take_snapshot"]

Progress = Callable[[str, int, int], None]  # topic, records read, records to read

_POLL_RECORDS = 5_000
_FETCH_BYTES = 4 * 1024 * 1024
_SILENT_SECONDS = 30.0
_ROUNDS = 4  # each takes as long as what was written during the one before


class Snapshot(NamedTuple):
    topic: str
    next_offsets: Mapping[int, int]  # by partition: the first offset that is not part of the snapshot
    store: Store

    def items(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of a partition, in order of the keys."""
        for key, value in self.store.items(_prefix(partition), _prefix(partition + 1)):
            yield key[4:], value


def take_snapshot(connection: KafkaConnection, topic: str, folder: Path, progress: Progress) -> Snapshot:
    """Read `topic` into a store at `folder`, which the caller closes. Raises `LeavingError` when there is no topic."""
    with TopicReader(connection, poll_records=_POLL_RECORDS, fetch_bytes=_FETCH_BYTES) as reader:
        partitions = reader.partitions(topic)
        if not partitions:
            raise LeavingError(f"there is no topic {topic}: are the servers and --prefix right?")
        reader.assign(partitions)
        begins, ends = reader.beginnings(partitions), reader.ends(partitions)
        store = Store(folder, {})
        try:
            _apply(reader, store, begins, ends, progress)
            for _ in range(_ROUNDS):
                later = reader.ends(partitions)
                if not _unseen(reader, store, ends, later):
                    break
                _apply(reader, store, ends, later, progress)
                ends = later
        except BaseException:
            store.close()
            raise
    return Snapshot(topic, {tp.partition: end for tp, end in ends.items()}, store)


def _apply(
    reader: TopicReader,
    store: Store,
    begins: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    progress: Progress,
) -> None:
    todo = sum(ends[tp] - begin for tp, begin in begins.items())
    for left, batch in read_between(reader, begins, ends):
        store.write({_prefix(record.partition) + record.key: record.value for record in batch if record.key})
        progress(batch[0].topic if batch else "", todo - left, todo)


def _unseen(
    reader: TopicReader, store: Store, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> bool:
    """Whether there is a key between these offsets that the snapshot does not have."""
    for _, batch in read_between(reader, begins, ends):
        keys = [_prefix(record.partition) + record.key for record in batch if record.key]
        if any(value is None for value in store.get_many(keys)):
            return True
    return False


def read_between(
    reader: TopicReader, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> Iterator[tuple[int, list[ConsumerRecord]]]:
    """The committed records of the assigned partitions from `begins` to before `ends`, in batches, each with the number
    of offsets that are left. Raises `KafkaTimeoutError` when the brokers are silent."""
    for tp, begin in begins.items():
        reader.seek(tp, begin)
    moved, left = time.monotonic(), sum(ends[tp] - begin for tp, begin in begins.items())
    while left:
        found = [record for records in reader.poll(0.2).values() for record in records]
        before = left
        left = sum(max(end - reader.position(tp), 0) for tp, end in ends.items())
        yield left, [r for r in found if r.offset < ends[TopicPartition(r.topic, r.partition)]]
        now = time.monotonic()
        if left != before:
            moved = now
        elif now - moved > _SILENT_SECONDS:
            raise KafkaTimeoutError(f"nothing read for {_SILENT_SECONDS:.0f} s, {left} records before the end")


def _prefix(partition: int) -> bytes:
    return partition.to_bytes(4, "big")
