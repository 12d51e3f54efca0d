"""Reading an interaction log from a file: whatever its dialect, columns in time order.

MovieLens (`.inter`, `u.data`, `ratings.dat`, `ratings.csv`), any CSV or TSV with or without header, parquet, JSON
lines; text may be compressed (.gz, .bz2, .zst, .lz4). Rows that make no sense are counted with an example, and skipped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from stream.wire.records import Interaction

__all__ = ["Columns", "InteractionLog", "LogError", "read_log"]

# Names that logs in the wild use, in lower case without separators; the first that is there wins.
_KNOWN_NAMES = {
    "user": ("user", "userid", "uid", "visitorid", "customerid", "reviewerid", "sessionid"),
    "item": ("item", "itemid", "iid", "movieid", "productid", "parentasin", "asin", "trackid", "bookid", "businessid"),
    "timestamp": ("timestamp", "timestampms", "time", "ts", "unixreviewtime", "eventtime", "datetime", "date"),
    "rating": ("rating", "score", "stars", "overall"),
    "weight": ("weight",),
    "event": ("event", "eventtype", "behavior", "action"),
}
_REQUIRED = ("user", "item", "timestamp")
_UNITS = {"s": 1000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}  # milliseconds in one
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_ISO_TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)?)?$"
_EXAMPLES = 5


class LogError(ValueError):
    """The file as a whole cannot be read as an interaction log; the message says which option would help."""


@dataclass(frozen=True)
class Columns:
    """Which column is what: a name, or a position from 0 for a text file without header. None: find it."""

    user: str | int | None = None
    item: str | int | None = None
    timestamp: str | int | None = None
    rating: str | int | None = None  # only compared with a minimum
    weight: str | int | None = None  # strength of the interaction; found only by the name `weight`
    event: str | int | None = None
    time_unit: str | None = None  # s, ms, us, ns; None judges by the size of the numbers
    delimiter: str | None = None
    header: bool | None = None  # None: yes unless the first line holds a number

    def __post_init__(self) -> None:
        if self.time_unit is not None and self.time_unit not in _UNITS:
            raise ValueError(f"time_unit must be one of {', '.join(_UNITS)}, got {self.time_unit!r}")


@dataclass(frozen=True)
class InteractionLog:
    """Interactions in time order; events of one millisecond keep the order of the file.

    `users` and `items` are positions in `user_ids` and `item_ids`, int32 (n,); `timestamps` are milliseconds since 1970
    UTC, int64 (n,).
    """

    user_ids: list[str]
    item_ids: list[str]
    users: np.ndarray
    items: np.ndarray
    timestamps: np.ndarray
    weights: np.ndarray | None = None  # float64 (n,)
    events: np.ndarray | None = None  # str objects (n,)
    rows: int = 0  # in the file, header excluded
    malformed: int = 0
    below_minimum: int = 0
    examples: tuple[str, ...] = ()  # of malformed rows

    def __len__(self) -> int:
        return len(self.timestamps)

    def interactions(self, start: int = 0) -> Iterator[Interaction]:
        """From the event at position `start` on."""
        weights: Sequence[float] | None = None if self.weights is None else self.weights.tolist()
        for i in range(start, len(self)):
            yield Interaction(
                user=self.user_ids[self.users[i]],
                item=self.item_ids[self.items[i]],
                timestamp=int(self.timestamps[i]),
                weight=1.0 if weights is None else weights[i],
                event="" if self.events is None else self.events[i],
            )


@dataclass
class _Malformed:
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(example[:200])

    def reject(self, table: pa.Table, sound: pa.ChunkedArray, why: str) -> pa.Table:
        """The rows of `table` where `sound` is true; null counts as unsound."""
        sound = pc.fill_null(sound, False)
        unsound = len(table) - (pc.sum(sound).as_py() or 0)
        if not unsound:
            return table
        room = max(0, _EXAMPLES - len(self.examples))
        for row in table.filter(pc.invert(sound)).slice(0, room).to_pylist():
            self.examples.append(f"{why}: {row}"[:200])
        self.count += unsound
        return table.filter(sound)


def read_log(path: Path, columns: Columns | None = None, min_rating: float | None = None) -> InteractionLog:
    """Read `path` whole; only ratings of at least `min_rating` stay. Raises `LogError`."""
    columns = columns or Columns()
    if not path.is_file():
        raise LogError(f"{path}: no such file")
    malformed = _Malformed()
    try:
        table = _read_table(path, columns, malformed, with_rating=min_rating is not None)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise LogError(f"{path}: {error}") from error
    rows = len(table) + malformed.count
    for name in ("user", "item"):
        table = malformed.reject(table, pc.greater(pc.utf8_length(table[name]), 0), f"no {name}")
    table = _with_timestamps(table, columns.time_unit, malformed)
    for name in ("rating", "weight"):
        if name in table.column_names:
            table = _with_numbers(table, name, malformed)
    if "weight" in table.column_names:
        table = malformed.reject(table, pc.greater_equal(table["weight"], 0.0), "weight is negative")
    kept = table
    if min_rating is not None:
        kept = table.filter(pc.greater_equal(table["rating"], min_rating))
    order = np.argsort(kept["timestamp"].to_numpy(), kind="stable")
    ordered = kept.take(pa.array(order))
    user_ids, users = _codes(ordered["user"])
    item_ids, items = _codes(ordered["item"])
    return InteractionLog(
        user_ids,
        item_ids,
        users,
        items,
        ordered["timestamp"].to_numpy(),
        ordered["weight"].to_numpy() if "weight" in ordered.column_names else None,
        pc.fill_null(ordered["event"], "").to_numpy() if "event" in ordered.column_names else None,
        rows=rows,
        malformed=malformed.count,
        below_minimum=len(table) - len(kept),
        examples=tuple(malformed.examples),
    )


def _read_table(path: Path, columns: Columns, malformed: _Malformed, with_rating: bool) -> pa.Table:
    """A table with the columns `user`, `item`, `timestamp` and what else was asked for."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".parquet", ".pq"):
        schema = parquet.read_schema(path)
        chosen = _choose(columns, schema.names, with_rating, path)
        table = parquet.read_table(path, columns=sorted(set(chosen.values())))
    elif any(suffix in (".jsonl", ".ndjson", ".json") for suffix in suffixes[-2:]):
        table, chosen = _read_json_lines(path, columns, malformed, with_rating)
    else:
        table, chosen = _read_delimited(path, columns, malformed, with_rating)
    found = {name: table[source] for name, source in chosen.items()}
    for name in ("user", "item", "event"):
        if name in found:
            found[name] = _as_text(found[name])
    return pa.table(found)


def _read_delimited(
    path: Path, columns: Columns, malformed: _Malformed, with_rating: bool
) -> tuple[pa.Table, dict[str, str]]:
    with pa.input_stream(str(path), compression="detect") as stream:
        text = stream.read()
    first_line = text[:65536].splitlines()[0].decode("utf-8-sig") if text else ""
    delimiter = columns.delimiter or max(("::", "\t", ",", ";", "|"), key=first_line.count)
    fields = [name.strip().strip('"') for name in first_line.split(delimiter)]
    if len(fields) < len(_REQUIRED):
        raise LogError(f"{path}: fewer than three columns in {first_line[:80]!r}; name the delimiter")
    header = columns.header
    if header is None:
        header = not any(re.match(_NUMBER, name) for name in fields)
    if header:
        names = [name.partition(":")[0] for name in fields]  # RecBole writes name:type
    else:
        names = [str(position) for position in range(len(fields))]
        usual = {3: ("user", "item", "timestamp"), 4: ("user", "item", "rating", "timestamp")}.get(len(names), ())
        named = {name for name in _KNOWN_NAMES if getattr(columns, name) is not None}
        if not named:
            names = list(usual) or names
    if len(delimiter) > 1:  # Arrow parses one-byte delimiters
        text = text.replace(delimiter.encode(), b"\x1f")
        delimiter = "\x1f"

    def skip(row: csv.InvalidRow) -> str:
        malformed.add(f"{row.actual_columns} columns instead of {row.expected_columns}: {row.text!r}")
        return "skip"

    chosen = _choose(columns, names, with_rating, path)
    table = csv.read_csv(
        io.BytesIO(text),
        read_options=csv.ReadOptions(column_names=names, skip_rows=int(header), block_size=16 << 20),
        parse_options=csv.ParseOptions(
            delimiter=delimiter, quote_char='"' if delimiter in ",;" else False, invalid_row_handler=skip
        ),
        convert_options=csv.ConvertOptions(
            column_types={name: pa.binary() for name in names}, include_columns=sorted(set(chosen.values()))
        ),
    )
    for position, name in enumerate(table.column_names):
        try:
            column = table[name].cast(pa.string())
        except pa.ArrowInvalid:  # somewhere it is not UTF-8
            column = pa.chunked_array([pa.array(map(_decoded, table[name].to_pylist()), pa.string())])
        table = table.set_column(position, name, column)
    return table, chosen


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _read_json_lines(
    path: Path, columns: Columns, malformed: _Malformed, with_rating: bool
) -> tuple[pa.Table, dict[str, str]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    chosen: dict[str, str] = {}
    values: dict[str, list[str | None]] = {}
    with pa.input_stream(str(path), compression="detect") as stream:
        for line in io.BufferedReader(stream):
            if line.isspace():
                continue
            try:
                row = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                malformed.add(f"{error}: {line!r}")
                continue
            if not chosen:  # the first sound line names the columns
                chosen = _choose(columns, list(row), with_rating, path)
                values = {source: [] for source in chosen.values()}
            for source, column in values.items():
                value = row.get(source)
                plain = isinstance(value, str | int | float) and not isinstance(value, bool)
                column.append(str(value) if plain else None)
    if not chosen:
        raise LogError(f"{path}: no line is a JSON object")
    return pa.table({source: pa.array(column, pa.string()) for source, column in values.items()}), chosen


def _choose(columns: Columns, names: list[str], with_rating: bool, path: Path) -> dict[str, str]:
    """Our name -> the file's name of each column to read."""
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in reversed(names)}
    chosen = {}
    for ours, usual in _KNOWN_NAMES.items():
        if ours == "rating" and not with_rating:
            continue
        asked = getattr(columns, ours)
        if asked is not None:
            if str(asked) not in names:
                raise LogError(f"{path}: no column {asked!r} for {ours}; there are {', '.join(map(repr, names))}")
            chosen[ours] = str(asked)
        elif source := next((plain[name] for name in usual if name in plain), None):
            chosen[ours] = source
    needed = (*_REQUIRED, "rating") if with_rating else _REQUIRED
    if missing := [name for name in needed if name not in chosen]:
        raise LogError(
            f"{path}: which column is {' and which is '.join(missing)}? There are {', '.join(map(repr, names))}"
        )
    return chosen


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    if pa.types.is_floating(column.type) and pc.all(pc.equal(pc.floor(column), column)).as_py():
        column = column.cast(pa.int64())  # whole ids that pandas wrote as floats because one was missing
    return column.cast(pa.string())


def _with_numbers(table: pa.Table, name: str, malformed: _Malformed) -> pa.Table:
    column = table[name]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        table = malformed.reject(table, pc.match_substring_regex(column, _NUMBER), f"{name} is not a number")
        column = pc.utf8_trim_whitespace(table[name])
    table = table.set_column(table.column_names.index(name), name, column.cast(pa.float64()))
    return malformed.reject(table, pc.is_finite(table[name]), f"{name} is not a number")


def _with_timestamps(table: pa.Table, unit: str | None, malformed: _Malformed) -> pa.Table:
    """The column `timestamp` as int64 milliseconds."""
    column, position = table["timestamp"], table.column_names.index("timestamp")
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if text and pc.any(pc.match_substring_regex(column.slice(0, 100), _ISO_TIME)).as_py():
        table = malformed.reject(table, pc.match_substring_regex(column, _ISO_TIME), "not an ISO 8601 time")
        times = [_iso_ms(value) for value in table["timestamp"].to_pylist()]
        table = table.set_column(position, "timestamp", pa.chunked_array([pa.array(times, pa.int64())]))
        return malformed.reject(table, pc.is_valid(table["timestamp"]), "not an ISO 8601 time")
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        table = malformed.reject(table, pc.is_valid(column), "no timestamp")
        times = table["timestamp"].cast(pa.timestamp("ms", tz=getattr(column.type, "tz", None)), safe=False)
        return table.set_column(position, "timestamp", times.cast(pa.int64()))
    table = _with_numbers(table, "timestamp", malformed)
    numbers = table["timestamp"].to_numpy()
    scale = _UNITS[unit or _unit_of(numbers)]
    milliseconds = np.rint(numbers * scale)
    fits = np.abs(milliseconds) < 2**53
    table = table.set_column(position, "timestamp", pa.array(np.where(fits, milliseconds, 0).astype(np.int64)))
    return malformed.reject(table, pa.chunked_array([pa.array(fits)]), "timestamp is too large")


def _iso_ms(value: str) -> int | None:
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _unit_of(numbers: np.ndarray) -> str:
    """Seconds stay below 1e11 until the year 5138; each finer unit begins a thousand times higher, in 1973."""
    size = float(np.median(np.abs(numbers))) if len(numbers) else 0.0
    return "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"


def _codes(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    encoded = pc.dictionary_encode(column).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().chunk(0) if encoded.num_chunks else pa.array([], encoded.type)
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int32)
