"""Histories and lists as Parquet: one file per partition of the topic, and a table of contents.

    histories/00000.parquet    a row for each item of a user's history
    lists/00000.parquet        a row for each place of a user's newest list
    export.json                topics, offsets, users and rows; it is written last

A file's metadata has the topic, its id, the partition and the first offset that is not part of the file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from state import codec
from stream.clients.admin import admin_client, topic_identity
from stream.clients.connection import KafkaConnection
from stream.leaving.folder import filled_folder
from stream.leaving.snapshot import Progress, Snapshot, take_snapshot
from stream.wire.records import Recommendation
from stream.wire.topics import TopicPlan

__all__ = ["Exported", "PartitionExport", "TopicExport", "export", "offsets_shown"]

log = logging.getLogger(__name__)

_CONTENTS = "export.json"
_ROWS = 50_000  # of one row group
_TIME = pa.timestamp("ms", tz="UTC")
_EVENT = pa.struct([("time", _TIME), ("kind", pa.string()), ("strength", pa.float32())])
_HISTORIES = pa.schema(
    [
        ("user", pa.string()),
        ("item", pa.string()),
        ("time", _TIME),  # of the last interaction, like the next two
        ("kind", pa.string()),
        ("strength", pa.float32()),
        ("earlier", pa.list_(_EVENT)),  # interactions before it that are kept, newest first
        ("partition", pa.int32()),
    ]
)
_LISTS = pa.schema(
    [
        ("user", pa.string()),
        ("place", pa.int32()),  # 1 is the best
        ("item", pa.string()),
        ("score", pa.float64()),
        ("model", pa.string()),  # version, "" for popularity
        ("variant", pa.string()),
        ("reason", pa.string()),
        ("pilot", pa.string()),  # that the list is part of, and the variant in it; null for none
        ("pilot_variant", pa.string()),
        ("as_of", _TIME),  # of the newest interaction that the list knows; null for none
        ("published", _TIME),
        ("partition", pa.int32()),
    ]
)
_recommendation = msgspec.json.Decoder(Recommendation)


class PartitionExport(msgspec.Struct):
    partition: int
    next_offset: int  # the first offset that is not part of the export
    users: int = 0
    rows: int = 0
    unreadable: int = 0  # invalid records, which are left out


class TopicExport(msgspec.Struct):
    topic: str
    topic_id: str
    partitions: list[PartitionExport]


class Exported(msgspec.Struct):
    """`export.json`."""

    freshet: str
    started_ms: int
    histories: TopicExport
    lists: TopicExport
    format: int = 1


class _Unreadable(ValueError):
    """A value that is not valid for its topic."""


class _Table(NamedTuple):
    name: str
    topic: str
    schema: pa.Schema


def export(connection: KafkaConnection, plan: TopicPlan, folder: Path, progress: Progress) -> Exported:
    """Write both topics to an empty `folder`, which needs room for a copy of a topic as well. Memory is bounded.

    Raises `LeavingError`.
    """
    started_ms = int(time.time() * 1000)
    tables = _Table("histories", plan.histories, _HISTORIES), _Table("lists", plan.recommendations, _LISTS)
    with filled_folder(folder, _CONTENTS) as partial:
        histories, lists = (_export_topic(connection, table, partial, progress) for table in tables)
        contents = Exported(version("freshet"), started_ms, histories, lists)
        (partial / _CONTENTS).write_bytes(msgspec.json.format(msgspec.json.encode(contents), indent=2))
    return contents


def _export_topic(connection: KafkaConnection, table: _Table, partial: Path, progress: Progress) -> TopicExport:
    work = partial / f".{table.name}"
    snapshot = take_snapshot(connection, table.topic, work, progress)
    try:
        with admin_client(connection) as admin:
            topic_id = topic_identity(admin, table.topic)["topic_id"]
        (partial / table.name).mkdir()
        partitions = []
        for number, next_offset in sorted(snapshot.next_offsets.items()):
            done = PartitionExport(number, next_offset)
            metadata = {"topic": table.topic, "topic_id": topic_id, "partition": number, "next_offset": next_offset}
            named = {f"freshet.{name}": str(value) for name, value in metadata.items()}
            _write(partial / table.name / f"{number:05d}.parquet", table, named, snapshot, done)
            partitions.append(done)
        return TopicExport(table.topic, topic_id, partitions)
    finally:
        snapshot.store.close()
        snapshot.store.destroy(work)


def _write(path: Path, table: _Table, metadata: Mapping[str, str], snapshot: Snapshot, done: PartitionExport) -> None:
    schema = table.schema.with_metadata(metadata)
    of_user = _history_rows if table.name == "histories" else _list_rows
    rows: list[dict[str, Any]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for user, value in snapshot.items(done.partition):
            try:
                found = of_user(user, value)
            except _Unreadable as error:
                done.unreadable += 1
                log.error("%s/%d: the record of %r is left out: %s", table.topic, done.partition, user, error)
                continue
            done.users += bool(found)
            done.rows += len(found)
            rows += [{**row, "partition": done.partition} for row in found]
            if len(rows) >= _ROWS:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()
        writer.write_table(pa.Table.from_pylist(rows, schema))


def _history_rows(user: bytes, value: bytes) -> Sequence[dict[str, Any]]:
    try:
        name, history = user.decode(), codec.decode(value)
    except (UnicodeDecodeError, codec.CodecError) as error:
        raise _Unreadable(str(error)) from None
    rows = []
    for place, item in enumerate(history.items):
        last, *earlier = ({"time": e.time_ms, "kind": e.kind, "strength": e.strength} for e in history.events(place))
        rows.append({"user": name, "item": item, **last, "earlier": earlier})
    return rows


def _list_rows(user: bytes, value: bytes) -> Sequence[dict[str, Any]]:
    try:
        found = _recommendation.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Unreadable(str(error)) from None
    if found.user.encode() != user:
        raise _Unreadable("it is of somebody else")
    shared = {
        "user": found.user,
        "model": found.model,
        "variant": found.variant,
        "reason": found.reason,
        "pilot": None if found.pilot is None else found.pilot.name,
        "pilot_variant": None if found.pilot is None else found.pilot.variant,
        "as_of": found.as_of or None,
        "published": found.published,
    }
    return [
        {**shared, "place": place, "item": scored.item, "score": scored.score}
        for place, scored in enumerate(found.items, 1)
    ]


def offsets_shown(exported: Exported) -> Iterator[str]:
    """A line per partition."""
    for topic in (exported.histories, exported.lists):
        for p in topic.partitions:
            unreadable = f", {p.unreadable} unreadable" if p.unreadable else ""
            yield f"{topic.topic}/{p.partition} up to {p.next_offset}: {p.users:,} users, {p.rows:,} rows{unreadable}"
