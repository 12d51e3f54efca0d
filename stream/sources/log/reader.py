"""Interaction logs from files: one reader for `demo`, `replay` and `evaluate`.

opening      files, folders, archives -> bytes
dialect      bytes -> encoding, delimiter, quotes, header
delimited, json_rows, columnar    bytes -> columns of text
recognise    columns of text -> user, item, time, ...
event_table  text -> events on disk -> time order
account      a summary of what was read
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from stream.sources.log.account import Account, TakenColumn
from stream.sources.log.columnar import ParquetFile
from stream.sources.log.delimited import DelimitedFile
from stream.sources.log.event_table import EventTable
from stream.sources.log.json_rows import JsonFile
from stream.sources.log.opening import LogFile, log_files
from stream.sources.log.options import ROLES, LogError, LogOptions
from stream.sources.log.recognise import Recognised, recognise
from stream.sources.log.rows import EXAMPLES, Columns, RowFile
from stream.sources.log.times import FORM_WORDS, TimeRules, unit_named
from stream.wire.records import Interaction, Limits

__all__ = ["InteractionLog", "LogArrays", "Progress", "read_log"]

Progress = Callable[[float], None]
"""Called with the share of the log that has been read, from 0 to 1."""

_USUAL_SHARE = 0.8  # of the highest rating: 4 of 5


@dataclass(frozen=True)
class LogArrays:
    """A log in memory, in time order. `users` and `items` are positions in `user_ids` and `item_ids`."""

    user_ids: list[str]
    item_ids: list[str]
    users: np.ndarray  # int32 (n,)
    items: np.ndarray  # int32 (n,)
    times_ms: np.ndarray  # int64 (n,)
    weights: np.ndarray  # float64 (n,)
    events: np.ndarray  # str objects (n,)
    rated: np.ndarray  # bool (n,), whether the event is not below the least rating


class InteractionLog:
    """Interactions in time order, on disk; those of one millisecond are in the order of the file. Close the log after
    use."""

    def __init__(self, table: EventTable, account: Account) -> None:
        self._table = table
        self.account = account

    def __len__(self) -> int:
        return self.account.events

    def __enter__(self) -> InteractionLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._table.close()

    def interactions(self, start: int = 0) -> Iterator[Interaction]:
        """The events from position `start` on."""
        for found in self._table.in_time_order(start, "user, item, ms, weight, event"):
            yield from map(Interaction, *(column.to_pylist() for column in found.columns))

    def arrays(self, below_minimum: bool = False) -> LogArrays:
        """The log in memory; with `below_minimum` including the events that are rated below the minimum."""
        columns = "user, item, ms, weight, event, rated"
        found = pa.Table.from_batches(self._table.in_time_order(0, columns, below_minimum))
        user_ids, users = _codes(found["user"])
        item_ids, items = _codes(found["item"])
        return LogArrays(
            user_ids,
            item_ids,
            users,
            items,
            found["ms"].to_numpy(),
            found["weight"].to_numpy(),
            found["event"].to_numpy(),
            found["rated"].to_numpy(),
        )


def _codes(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int32)


def read_log(
    path: Path,
    options: LogOptions | None = None,
    *,
    usual_ratings: bool = False,
    any_age: bool = False,
    progress: Progress = lambda share: None,
    now_ms: int | None = None,
) -> InteractionLog:
    """Read `path`, a file, an archive or a folder. Raises `LogError`, also when no event is left.

    Args:
        usual_ratings: in a log with ratings, leave out events rated below four fifths of the highest rating, unless
            the options set a least rating.
        any_age: times may be before 1995, and numbers may count from an unknown moment, as in anonymised logs; the
            updater refuses such events.
        progress: may raise, which ends the reading.
        now_ms: events after it are malformed.
    """
    options = options or LogOptions()
    limits = Limits()
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    files = log_files(path, options.member)
    table = EventTable(TimeRules.of(options, limits.earliest_ms, now_ms + limits.ahead_ms, any_age))
    try:
        with _as_log_errors(path):
            account = _Reading(path.name, options, table, files, progress, any_age).account(usual_ratings)
    except BaseException:
        table.close()
        raise
    return InteractionLog(table, account)


@contextmanager
def _as_log_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError, pa.ArrowException) as error:
        raise LogError(f"{path}: {error}") from error


class _Reading:
    """Reads the files of a log into a table."""

    def __init__(
        self,
        name: str,
        options: LogOptions,
        table: EventTable,
        files: Sequence[LogFile],
        progress: Progress,
        any_age: bool,
    ) -> None:
        self._name, self._options, self._table, self._files = name, options, table, files
        self._sources: list[RowFile] = []
        self._progress, self._any_age = progress, any_age
        self._sizes = [file.path.stat().st_size for file in files]

    def account(self, usual_ratings: bool) -> Account:
        columns, found = self._load()
        table, options = self._table, self._options
        ratings = table.ratings()
        least = options.min_rating
        if least is None and usual_ratings and ratings is not None:
            least = _USUAL_SHARE * ratings[1]
        forms = table.database.execute("SELECT DISTINCT form FROM events WHERE ms IS NOT NULL").fetchall()
        self._check_unit(columns.names[found.positions["timestamp"]], {form for (form,) in forms})
        table.judge(self._name, options, least)
        if unknown := sorted(set(options.kinds) - table.kinds(options.kinds)):
            there = ", ".join(kind or "without a kind" for kind in table.tally("event"))
            raise LogError(f"{self._name} has no events of kind {', '.join(unknown)}; there are {there}")
        counts = table.counts()
        structural = sum(source.malformed.count for source in self._sources)
        examples = self._examples()
        account = Account(
            name=self._name,
            words=self._sources[0].words + (f", {len(self._files):,} files" if len(self._files) > 1 else ""),
            columns=tuple(
                TakenColumn(role, columns.names[place], found.how[role], columns.values[place][:3])
                for role, place in sorted(found.positions.items(), key=lambda pair: ROLES.index(pair[0]))
            ),
            unused=tuple(n for place, n in enumerate(columns.names) if place not in found.positions.values()),
            named=columns.named,
            line_breaks=any(source.line_breaks for source in self._sources),
            forms={FORM_WORDS[form]: count for form, count in table.tally("form").items()},
            zone=options.time_zone,
            rows=counts.events + counts.malformed + counts.below_minimum + counts.other_kinds + structural,
            malformed=counts.malformed + structural,
            below_minimum=counts.below_minimum,
            other_kinds=counts.other_kinds,
            examples=tuple(examples),
            events=counts.events,
            users=counts.users,
            items=counts.items,
            first_ms=counts.first_ms,
            last_ms=counts.last_ms,
            ratings=ratings,
            min_rating=least,
            kinds=table.tally("event", "usable") if "event" in found.positions else {},
            first_rows=tuple(
                Interaction(row["user"], row["item"], row["ms"], row["weight"], row["event"])
                for row in table.first_rows(3).to_pylist()
            ),
        )
        if not account.events:
            raise LogError(account.why_empty(options.kinds))
        return account

    def _load(self) -> tuple[Columns, Recognised]:
        columns: Columns | None = None
        found: Recognised | None = None
        for number, file in enumerate(self._files):
            source = _row_file(file, self._options, self._table.folder)
            own = _with_constants(source.columns(self._watch(number)), file)
            if columns is None or found is None:
                columns = own
                found = recognise(
                    self._name, own, self._options, self._table.database, partial(_place, source), self._any_age
                )
            if set(own.names) != set(columns.names):
                raise LogError(
                    f"{self._name}: {file.name} has other columns than {self._files[0].name}; choose with --member"
                )
            positions = [own.names.index(columns.names[place]) for place in found.positions.values()]
            clock = found.positions.get("time_of_day")
            batches = _constants_in(source, positions, own, file, self._watch(number))
            numbered = _renumbered(batches, number)
            self._table.load(list(found.positions), numbered, clock is not None and _are_hours(columns, clock))
            self._sources.append(source)
        assert columns is not None and found is not None  # there is at least one file
        return columns, found

    def _watch(self, number: int) -> Callable[[int], None]:
        before, total = sum(self._sizes[:number]), max(sum(self._sizes), 1)
        return lambda count: self._progress(min((before + count) / total, 1.0))

    def _check_unit(self, name: str, forms: set[str]) -> None:
        unit = unit_named(name)
        others = sorted((forms & {"s", "ms", "us", "ns"}) - {unit})
        if self._options.time_unit is None and unit is not None and others:
            raise LogError(
                f"{self._name}: the column {name!r} holds {FORM_WORDS[others[0]]} by the size of its numbers, not "
                f"{FORM_WORDS[unit].partition(' ')[0]} as its name says; type --time-unit {others[0]} or {unit}"
            )

    def _examples(self) -> list[str]:
        """Examples of malformed rows, with their places."""
        faults = self._table.faults()
        found = []
        for number, source in enumerate(self._sources):
            own = {row & _ROW_MASK: why for row, why in faults if row >> _ROW_BITS == number}
            if own:
                places = source.places(own.keys())
                before = f"{self._files[number].name}, " if len(self._files) > 1 else ""
                found += [f"{before}{places.get(row, f'row {row + 1:,}')}: {why}" for row, why in own.items()]
            found += source.malformed.examples
        return found[:EXAMPLES]


_ROW_BITS = 40
_ROW_MASK = (1 << _ROW_BITS) - 1


def _place(source: RowFile, row: int) -> str:
    return source.places([row]).get(row, f"row {row + 1:,}")


def _row_file(file: LogFile, options: LogOptions, folder: Path) -> RowFile:
    begin = file.begins_with(1 << 16)
    if not begin:
        raise LogError(f"{file.path} is empty: there is no line to find a delimiter in")
    if begin.startswith(b"PAR1") or file.name.lower().endswith((".parquet", ".pq")):
        return ParquetFile(file, folder)
    text = begin.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
    if text[:1] == b"{" or (text[:1] == b"[" and text[1:].lstrip(b"\0 \t\r\n")[:1] in (b"{", b"[", b'"', b"")):
        return JsonFile(file, options)
    return DelimitedFile(file, options)


def _with_constants(columns: Columns, file: LogFile) -> Columns:
    names = (*columns.names, *file.constants)
    more = [0] * len(file.constants)
    values = (*columns.values, *((value,) for value in file.constants.values()))
    return replace(columns, names=names, values=values, empty=(*columns.empty, *more), first=(*columns.first, *more))


def _constants_in(
    source: RowFile, positions: Sequence[int], columns: Columns, file: LogFile, on_bytes: Callable[[int], None]
) -> Iterator[pa.RecordBatch]:
    """Batches of the columns at `positions`, some of which may be constants from the folder's name."""
    in_file = len(columns.names) - len(file.constants)
    for found in source.batches([place for place in positions if place < in_file], on_bytes):
        read: Iterator[Any] = iter(found.columns[1:-1])
        arrays = [
            next(read)
            if place < in_file
            else pa.repeat(pa.scalar(file.constants[columns.names[place]], pa.string()), len(found))
            for place in positions
        ]
        names = ["row", *map(str, range(len(arrays))), "fault"]
        yield pa.RecordBatch.from_arrays([found.column(0), *arrays, found.column(found.num_columns - 1)], names)


def _renumbered(batches: Iterator[pa.RecordBatch], number: int) -> Iterator[pa.RecordBatch]:
    """The batches with row numbers that differ from those of all other files."""
    for found in batches:
        rows = pa.array(found.column(0).to_numpy() + (number << _ROW_BITS))
        yield pa.RecordBatch.from_arrays([rows, *found.columns[1:]], names=found.schema.names)


def _are_hours(columns: Columns, place: int) -> bool:
    """Whether times of day such as 9 or 15 are hours, rather than hours and minutes as in 930 and 1530."""
    name = columns.names[place].lower()
    return "min" not in name and "hhmm" not in name and all(len(value) < 3 for value in columns.values[place])
