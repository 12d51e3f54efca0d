"""Checks that no event was lost: compares the stored histories with a merge of all events in one step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.consumer.fetcher import ConsumerRecord

from state import codec
from state.history import EMPTY, Entry, History, merge_entries
from state.store import Store
from stream.clients.admin import ask_coordinator, topic_identity
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.updater.merging import decode_batch
from stream.wire.records import Forget, Interaction, Limits

__all__ = [
    "changelog_histories",
    "differences",
    "last_values",
    "records_taken",
    "records_written",
    "reference_merge",
    "reference_of_topic",
    "rejected_records",
    "stored_histories",
]


def reference_merge(events: Iterable[tuple[str, Entry]], limit: int) -> dict[str, History]:
    """The histories that must result from these (user, entry) events, whatever faults there were."""
    by_user: dict[str, list[Entry]] = {}
    for user, entry in events:
        by_user.setdefault(user, []).append(entry)
    return {user: merge_entries(EMPTY, entries, limit) for user, entries in by_user.items()}


def reference_of_topic(connection: KafkaConnection, topic: str, limit: int) -> dict[str, History]:
    """The histories that must result from all valid records of `interactions`, also those of other producers."""
    merged = {}
    for user, arrivals in decode_batch(_records(connection, topic), Limits())[0].items():
        records = [arrival.record for arrival in arrivals]
        entries = [Entry(r.timestamp, r.item, r.weight, r.event) for r in records if isinstance(r, Interaction)]
        forgotten_ms = max((r.timestamp for r in records if isinstance(r, Forget)), default=0)
        merged[user.decode()] = merge_entries(EMPTY, entries, limit, forgotten_ms)
    return merged


def stored_histories(admin: KafkaAdminClient, topic: str, folders: Iterable[Path]) -> dict[str, History]:
    """Histories in the RocksDB stores of stopped updaters; `folders` hold one store per partition, by number."""
    identity = topic_identity(admin, topic)
    found: dict[str, History] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.exists() else ():  # an updater without partitions has no folder
            store = Store(path, identity | {"partition": path.name})
            found.update((user.decode(), codec.decode(value)) for user, value in store.items())
            store.close()
    return found


def changelog_histories(connection: KafkaConnection, topic: str) -> dict[str, History]:
    """Histories as a restoring worker would read them: the last committed ones per user, without deleted ones."""
    return {user.decode(): codec.decode(value) for user, value in last_values(connection, topic).items()}


def last_values(connection: KafkaConnection, topic: str) -> dict[bytes, bytes]:
    """The content of a compacted topic: the last committed value per key, without deleted keys.

    Values are compared within a partition, because a key that moved to another one has a tombstone in the old one.
    """
    last = {(record.partition, record.key): record.value for record in _records(connection, topic)}
    return {key: value for (_, key), value in last.items() if key is not None and value is not None}


def rejected_records(connection: KafkaConnection, topic: str) -> Counter[str]:
    """The numbers of records of `interactions` in the dead-letter topic, by reason."""
    headers = (dict(record.headers) for record in _records(connection, topic))
    return Counter(header["reason"].decode() for header in headers if header["by"] == b"updater")


def records_written(admin: KafkaAdminClient, topic: str) -> int:
    """The number of records that a topic got, by the ends of its partitions; only for topics without transactions."""
    (description,) = admin.describe_topics([topic])
    partitions = [TopicPartition(topic, number) for number in range(len(description["partitions"]))]
    ends = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
    return sum(end.offset for end in ends.values())


def records_taken(admin: KafkaAdminClient, group: str, topic: str) -> int:
    """The number of records of a topic that a group has processed, by its committed offsets, which restarts keep."""
    offsets = ask_coordinator(lambda: admin.list_group_offsets(group))[group]
    return sum(max(found.offset, 0) for tp, found in offsets.items() if tp.topic == topic)


def _records(connection: KafkaConnection, topic: str) -> Iterator[ConsumerRecord]:
    """Every committed record of a topic up to its end as it is now."""
    with TopicReader(connection, poll_records=10_000) as reader:
        reader.assign(reader.partitions(topic))
        reader.to_beginning()
        yield from reader.read_to_end()


def differences(found: dict[str, History], expected: dict[str, History]) -> list[str]:
    """One line per user whose history is missing, unexpected or different; empty when all agree."""
    lines = []
    for user in sorted(found.keys() | expected.keys()):
        have, want = found.get(user, EMPTY), expected.get(user, EMPTY)
        if have != want:
            expected_newest = f"expected {len(want.items)}, {want.newest_ms}"
            lines.append(f"{user}: {len(have.items)} items, newest {have.newest_ms}; {expected_newest}")
    return lines
