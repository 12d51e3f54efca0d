"""The events of a backtest, in the order in which they happened, from a file or from `interactions`.

Memory: 22 bytes per event, and the ids of users and items once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.study.interactions import moment_order, moment_starts
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.sources.log.options import LogError, LogOptions
from stream.sources.log.reader import read_log
from stream.wire.records import Forget, Interaction, Limits, Rejected, decode_interaction

__all__ = ["EventLog", "batches", "log_of_file", "log_of_topic"]


@dataclass(frozen=True)
class EventLog:
    """n events in time order. Events of one user and time are one moment and are adjacent.

    Raises `LogError` when there is none.
    """

    name: str
    user_ids: Sequence[str]
    item_ids: Sequence[str]
    kind_names: Sequence[str]
    users: np.ndarray  # int32 [n], places in `user_ids`
    items: np.ndarray  # int32 [n]
    times_ms: np.ndarray  # int64 [n]
    weights: np.ndarray  # float32 [n]
    kinds: np.ndarray  # uint16 [n], places in `kind_names`
    left_out: str = ""  # a text about the records that were read and left out

    def __post_init__(self) -> None:
        if not len(self.times_ms):
            raise LogError(
                f"{self.name}: there is no event to replay" + (f"; {self.left_out}" if self.left_out else "")
            )

    def __len__(self) -> int:
        return len(self.times_ms)

    @classmethod
    def ordered(
        cls,
        name: str,
        ids: tuple[Sequence[str], Sequence[str], Sequence[str]],
        columns: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
        left_out: str = "",
    ) -> EventLog:
        """A log from rows in any order: `ids` of users, items and kinds, and `columns` (users, items, times_ms,
        weights, kinds). Rows that differ in the weight only are one event, as in a history."""
        users, items, times_ms, weights, kinds = columns
        rows = moment_order(users, times_ms, items, kinds, -weights)
        same = [np.diff(column[rows]) == 0 for column in (users, times_ms, items, kinds)]
        rows = rows[np.concatenate([np.ones(min(len(rows), 1), dtype=bool), ~np.logical_and.reduce(same)])]
        return cls(
            name,
            *ids,
            users[rows].astype(np.int32),
            items[rows].astype(np.int32),
            times_ms[rows].astype(np.int64),
            weights[rows].astype(np.float32),
            kinds[rows].astype(np.uint16),
            left_out,
        )

    def moments(self) -> np.ndarray:
        """int64 [n]: the place of the first event of each event's moment."""
        return moment_starts(self.users, self.times_ms)

    def interaction(self, event: int) -> Interaction:
        """An event as it would be on the topic."""
        return Interaction(
            self.user_ids[self.users[event]],
            self.item_ids[self.items[event]],
            int(self.times_ms[event]),
            float(self.weights[event]),
            self.kind_names[self.kinds[event]],
        )

    def fingerprint(self) -> str:
        """Equal for equal logs."""
        digest = hashlib.sha256()
        for column in (self.users, self.items, self.times_ms, self.weights, self.kinds):
            digest.update(np.ascontiguousarray(column).tobytes())
        for ids in (self.user_ids, self.item_ids, self.kind_names):
            digest.update("\0".join(ids).encode())
        return digest.hexdigest()[:16]


def log_of_file(path: Path, options: LogOptions, weighted: bool = False) -> tuple[EventLog, list[str]]:
    """(The log as `freshet replay` reads it, a summary of what was read, as lines). Raises `LogError`.

    Without `weighted` every event with a positive weight has weight 1; an event with weight 0 keeps it.
    """
    with read_log(path, options, any_age=True) as read:
        arrays, account = read.arrays(), read.account
    kind_names, kinds = np.unique(arrays.events.astype(str), return_inverse=True)
    if len(kind_names) > np.iinfo(np.uint16).max:
        raise LogError(f"{path}: {len(kind_names)} kinds of events are too many; is that the right column?")
    weights = arrays.weights if weighted else (arrays.weights > 0).astype(np.float64)
    ids = (arrays.user_ids, arrays.item_ids, kind_names.tolist())
    columns = (arrays.users, arrays.items, arrays.times_ms, weights, kinds)
    return EventLog.ordered(path.name, ids, columns), account.lines()


def log_of_topic(connection: KafkaConnection, topic: str, limits: Limits) -> EventLog:
    """The events that `topic` holds now, as an updater would take them: refused records are left out and counted, and
    so are events of forgotten users from before the wish. Raises `LogError`, and `KafkaError` when the brokers do not
    answer."""
    builder = _TopicRows()
    with TopicReader(connection, poll_records=5_000, fetch_bytes=8 << 20) as reader:
        partitions = reader.partitions(topic)
        if not partitions:
            raise LogError(f"there is no topic {topic}")
        reader.assign(partitions)
        reader.to_beginning()
        for record in reader.read_to_end():
            try:
                decoded = decode_interaction(record.key, record.value, record.timestamp, limits)
            except Rejected:
                builder.refused += 1
                continue
            builder.add(decoded)
    return builder.log(topic)


class _TopicRows:
    """Collects the rows of a topic in blocks of columns."""

    def __init__(self) -> None:
        self.refused = 0
        self._ids: tuple[dict[str, int], dict[str, int], dict[str, int]] = ({}, {}, {})
        self._rows: list[tuple[int, int, int, float, int]] = []
        self._blocks: list[np.ndarray] = []
        self._forgotten: dict[int, int] = {}

    def add(self, record: Interaction | Forget) -> None:
        users, items, kinds = self._ids
        user = users.setdefault(record.user, len(users))
        if isinstance(record, Forget):
            self._forgotten[user] = max(self._forgotten.get(user, 0), record.timestamp)
            return
        item = items.setdefault(record.item, len(items))
        kind = kinds.setdefault(record.event, len(kinds))
        self._rows.append((user, item, record.timestamp, record.weight, kind))
        if len(self._rows) >= 100_000:  # a tuple needs ten times the memory of a row of an array
            self._pack()

    def _pack(self) -> None:
        dtype = [("user", "<i4"), ("item", "<i4"), ("time_ms", "<i8"), ("weight", "<f4"), ("kind", "<u2")]
        self._blocks.append(np.array(self._rows, dtype=dtype))
        self._rows.clear()

    def log(self, name: str) -> EventLog:
        self._pack()
        rows = np.concatenate(self._blocks)
        forgotten = np.full(len(self._ids[0]) + 1, -1, dtype=np.int64)
        for user, until_ms in self._forgotten.items():
            forgotten[user] = until_ms
        kept = rows["time_ms"] > forgotten[rows["user"]]
        left_out = [
            f"{count:,} {why}"
            for count, why in ((self.refused, "refused records"), (int((~kept).sum()), "events of forgotten users"))
            if count
        ]
        rows = rows[kept]
        users, items, kinds = (list(ids) for ids in self._ids)
        columns = rows["user"], rows["item"], rows["time_ms"], rows["weight"], rows["kind"]
        return EventLog.ordered(name, (users, items, kinds), columns, ", ".join(left_out))


def batches(log: EventLog, size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """(first, end) of runs of about `size` events that split no moment, from the event at `start` on."""
    moments = log.moments()
    while start < len(log):
        end = min(start + size, len(log))
        while end < len(log) and moments[end] < end:  # the rest of the last moment
            end += 1
        yield start, end
        start = end
