"""JSON: an object per line, an array of objects, or objects inside of a document.

Names of inner fields are joined by dots: `properties.product_id`. A list of objects makes one row per object, each with
the fields around the list (`events[].aid`). Lines in Python's form instead of JSON (`{'user': u'ann'}`) are read too.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import ijson
import msgspec
import pyarrow as pa

from stream.sources.log.dialect import as_utf8, encoding_of
from stream.sources.log.opening import LogFile, OnBytes
from stream.sources.log.options import LogError, LogOptions
from stream.sources.log.rows import SAMPLED_VALUES, Columns, Malformed, batch

__all__ = ["JsonFile"]

_LINE_BYTES = 16 << 20  # the text is taken as one document if its first line is longer
_BATCH_ROWS = 20_000
_FIELDS = 2000  # the most fields that are told apart; a log with more uses ids as field names
_WRAPPERS = ("$date", "$numberLong", "$numberInt", "$numberDouble", "$oid")  # MongoDB's

_decode = msgspec.json.Decoder().decode


class JsonFile:
    """A `RowFile` of JSON."""

    def __init__(self, file: LogFile, options: LogOptions) -> None:
        self._file = file
        self.malformed = Malformed()
        self.line_breaks = False
        begin = file.begins_with(_LINE_BYTES)
        self._encoding = encoding_of(begin, options, file.name)
        line = b"".join(as_utf8(iter([begin]), self._encoding)).lstrip().partition(b"\n")[0]
        self._path = None if self._is_object(line) else self._find_path()
        self._positions: dict[str, int] = {}

    @property
    def words(self) -> str:
        if self._path is None:
            return "JSON lines"
        return "objects of JSON" if not self._path else "an array of JSON objects"

    @staticmethod
    def _is_object(line: bytes) -> bool:
        try:
            return isinstance(_object(line), dict)
        except ValueError:
            return False

    def _chunks(self, on_bytes: OnBytes) -> Generator[bytes]:
        return as_utf8(self._file.chunks(on_bytes), self._encoding)

    def _find_path(self) -> str:
        """The path of the objects in ijson's notation: `item` for an array of objects, `data.item` for an array inside
        of an object, "" for objects that take several lines each."""
        before = ""
        try:
            with closing(self._chunks(lambda count: None)) as chunks:
                for path, kind, _ in ijson.parse(_Readable(chunks), multiple_values=True):
                    if kind == "start_map" and before == "start_array":
                        return path
                    if kind == "start_array" and before == "start_array":
                        raise LogError(f"{self._file.name} holds arrays without names; write objects, or CSV")
                    if kind == "end_map" and path == "":
                        return ""
                    before = kind
        except ijson.JSONError as error:
            reason = str(error).splitlines()[0]
            raise LogError(f"{self._file.name}: no line is a JSON object, and neither is all of it: {reason}") from None
        raise LogError(f"{self._file.name}: no line is a JSON object, and no object stands in a list of it")

    def columns(self, on_bytes: OnBytes) -> Columns:
        values: dict[str, list[str]] = {}
        filled: dict[str, int] = {}
        first: dict[str, int] = {}
        rows = 0
        for number, row in self._rows(on_bytes, Malformed()):
            rows += 1
            for name, value in row.items():
                if value is None or value == "":
                    values.setdefault(name, [])
                    continue
                known = values.get(name)
                if known is None and len(values) >= _FIELDS:
                    continue
                filled[name] = filled.get(name, 0) + 1
                first.setdefault(name, number)
                if known is None or len(known) < SAMPLED_VALUES:
                    values.setdefault(name, []).append(value)
        if not rows:
            raise LogError(f"{self._file.name}: no line is a JSON object")
        names = list(values)
        self._positions = {name: position for position, name in enumerate(names)}
        empty = tuple(1 - filled.get(name, 0) / rows for name in names)
        starts = tuple(first.get(name, 0) for name in names)
        return Columns(tuple(names), tuple(tuple(values[name]) for name in names), empty, starts)

    def batches(self, positions: Sequence[int], on_bytes: OnBytes) -> Iterator[pa.RecordBatch]:
        if not self._positions:
            self.columns(lambda count: None)
        names = list(self._positions)
        wanted = [names[position] for position in positions]
        exploded = {name.partition("[]")[0] for name in wanted if "[]" in name}
        if len(exploded) > 1:
            raise LogError(f"{self._file.name}: {', '.join(wanted)} stand in lists that say nothing of each other")
        rows = self._rows(on_bytes, self.malformed, exploded)
        while part := list(islice(rows, _BATCH_ROWS)):
            found = [pa.array([row.get(name) for _, row in part], pa.string()) for name in wanted]
            yield batch(pa.array([number for number, _ in part], pa.int64()), found)

    def places(self, rows: Collection[int]) -> Mapping[int, str]:
        what = "line" if self._path is None else "object"
        return {row: f"{what} {row:,}" for row in rows}

    def _rows(
        self, on_bytes: OnBytes, malformed: Malformed, exploded: Collection[str] | None = None
    ) -> Iterator[tuple[int, dict[str, str | None]]]:
        """(number of the line or object, from 1; values by name). With `exploded` None, every list of objects makes
        rows."""
        for number, found in self._objects(on_bytes, malformed):
            for row in _flat(found, exploded):
                yield number, row

    def _objects(self, on_bytes: OnBytes, malformed: Malformed) -> Iterator[tuple[int, dict[str, Any]]]:
        if self._path is None:
            yield from self._lines(on_bytes, malformed)
            return
        number = 0
        try:
            with closing(self._chunks(on_bytes)) as chunks:
                objects = ijson.items(_Readable(chunks), self._path, multiple_values=True, use_float=True)
                for number, found in enumerate(objects, 1):
                    if isinstance(found, dict):
                        yield number, found
                    else:
                        malformed.add(f"object {number:,}: {found!r} is no object")
        except ijson.JSONError as error:
            reason = str(error).splitlines()[0]
            raise LogError(f"{self._file.name} is broken after object {number:,}: {reason}") from None

    def _lines(self, on_bytes: OnBytes, malformed: Malformed) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in enumerate(_lines_of(self._chunks(on_bytes)), 1):
            if line.isspace() or not line:
                continue
            try:
                found = _object(line)
            except ValueError as error:
                malformed.add(f"line {number:,}: {error}: {line[:150]!r}")
                continue
            if isinstance(found, dict):
                yield number, found
            else:
                malformed.add(f"line {number:,} is no object: {line[:150]!r}")


def _object(line: bytes) -> Any:
    """The value of a line of JSON, or of a line in Python's form. Raises ValueError."""
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as strict:
        if not line.lstrip().startswith(b"{"):
            raise ValueError(str(strict)) from None
        try:
            return json.loads(line)  # also reads NaN and Infinity, which Python writes
        except (ValueError, RecursionError):
            if not line.lstrip().startswith((b"{'", b"{u'", b'{u"')):
                raise ValueError(str(strict)) from None
        try:
            return ast.literal_eval(line.decode().strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(str(strict)) from None


def _flat(found: Mapping[str, Any], exploded: Collection[str] | None) -> Iterator[dict[str, str | None]]:
    row: dict[str, str | None] = {}
    lists: list[tuple[str, list[Any]]] = []
    _collect(found, "", row, lists)
    chosen = [(name, inner) for name, inner in lists if exploded is None or name in exploded]
    if not chosen:
        yield row
        return
    for name, inner in chosen:
        for element in inner:
            below: dict[str, str | None] = {}
            if isinstance(element, dict):
                _collect(element, f"{name}[].", below, [])
            yield row | below


def _collect(found: Mapping[str, Any], above: str, row: dict[str, str | None], lists: list[tuple[str, list]]) -> None:
    """Put the plain values of `found` into `row`, and its lists of objects into `lists`."""
    for name, value in found.items():
        if isinstance(value, dict):
            wrapped = next((value[inner] for inner in _WRAPPERS if inner in value), None) if len(value) == 1 else None
            if isinstance(wrapped, dict):  # {"$date": {"$numberLong": "1700000000000"}}
                wrapped = next(iter(wrapped.values()), None)
            if wrapped is None:
                _collect(value, f"{above}{name}.", row, lists)
            else:
                row[above + name] = _text(wrapped)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lists.append((above + name, value))
        else:
            row[above + name] = _text(value)


def _text(value: Any) -> str | None:
    """A plain value as text; None for any other value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value) if isinstance(value, int | float) else None


class _Readable:
    """Chunks as a file that ijson can read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def read(self, size: int) -> bytes:
        if not size:
            return b""
        data = self._rest or next((chunk for chunk in self._chunks if chunk), b"")
        self._rest = data[size:]
        return data[:size]


def _lines_of(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines of up to about `_LINE_BYTES`; a longer line comes in pieces, which are no JSON objects."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > _LINE_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest
