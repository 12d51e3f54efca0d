"""Text with delimiters. Arrow reads it in blocks, so that memory stays bounded; before that, a guard checks quotes."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from stream.sources.log.dialect import Dialect, as_utf8, records, sniff
from stream.sources.log.opening import LogFile, OnBytes
from stream.sources.log.options import LogError, LogOptions
from stream.sources.log.quotes import QuoteGuard
from stream.sources.log.rows import SAMPLED_VALUES, Columns, Malformed, batch

__all__ = ["DelimitedFile"]

_MIB = 1 << 20
_SAMPLE_BYTES = 2 * _MIB
_BLOCK_BYTES = 8 * _MIB  # no row may be longer
_SEARCHED_BYTES = 64 * _MIB  # how far the line numbers of malformed rows are searched
_SEPARATOR = "\x1f"  # replaces a delimiter of several letters, which Arrow does not support


class DelimitedFile:
    """A `RowFile` of CSV, TSV and similar formats."""

    def __init__(self, file: LogFile, options: LogOptions) -> None:
        self._file = file
        self.malformed = Malformed()
        self.line_breaks = False
        begin = file.begins_with(_SAMPLE_BYTES)
        self._whole = len(begin) < _SAMPLE_BYTES
        self._dialect: Dialect = sniff(file.name, begin, self._whole, options, 3 if not file.constants else 2)
        self._begin = begin

    @property
    def words(self) -> str:
        return self._dialect.words

    def columns(self, on_bytes: OnBytes) -> Columns:
        dialect = self._dialect
        text = b"".join(self._lines(iter([self._begin]))).decode(errors="replace")
        if not self._whole:
            text = text[: text.rfind("\n") + 1]
        rows = records(text, dialect.delimiter, dialect.quote, dialect.escaped)
        if dialect.header:
            next(rows, None)
        values: list[list[str]] = [[] for _ in dialect.names]
        empty, first = [0] * len(dialect.names), [0] * len(dialect.names)
        count = 0
        for row in rows:
            if len(row) == len(dialect.names):
                for position, value in enumerate(row):
                    if not value.strip():
                        empty[position] += 1
                        continue
                    if not values[position]:
                        first[position] = count
                    if len(values[position]) < SAMPLED_VALUES:
                        values[position].append(value)
                count += 1
        shares = tuple(missing / max(count, 1) for missing in empty)
        return Columns(dialect.names, tuple(map(tuple, values)), shares, tuple(first), named=dialect.header)

    def batches(self, positions: Sequence[int], on_bytes: OnBytes) -> Iterator[pa.RecordBatch]:
        dialect = self._dialect
        delimiter = dialect.delimiter if len(dialect.delimiter) == 1 else _SEPARATOR
        quote = {"double": '"', "single": "'", "none": ""}[dialect.quote]
        chunks = self._lines(self._file.chunks(on_bytes))
        if len(dialect.delimiter) > 1:
            chunks = _replaced(chunks, dialect.delimiter.encode(), delimiter.encode())
        guard: QuoteGuard | None = None
        if quote:
            guard = QuoteGuard(self._file.name, delimiter.encode(), quote.encode(), dialect.escaped)
            chunks = guard.watch(chunks)
        names = [str(position) for position in range(len(dialect.names))]
        stream = _ChunkStream(chunks)
        try:
            with arrow_csv.open_csv(
                stream,
                read_options=arrow_csv.ReadOptions(
                    column_names=names, skip_rows_after_names=int(dialect.header), block_size=_BLOCK_BYTES
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=delimiter,
                    quote_char=quote or False,
                    escape_char="\\" if dialect.escaped else False,
                    newlines_in_values=bool(quote),
                    invalid_row_handler=self._skip,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.binary()),
                    include_columns=[names[position] for position in positions],
                ),
            ) as reader:
                start = 0
                for found in reader:
                    yield _decoded(pa.array(np.arange(start, start + len(found))), found.columns)
                    start += len(found)
            rows = start + self.malformed.count + int(dialect.header)
            self.line_breaks = guard is not None and guard.lines > rows
        except pa.ArrowInvalid as error:
            if stream.error is not None:  # Arrow raises its own error instead of this one
                raise stream.error from None
            if "straddling" in str(error):
                raise LogError(
                    f"{self._file.name} has a row of more than {_BLOCK_BYTES // _MIB} MiB. If quotes are letters here, "
                    "type --quote none"
                ) from None
            if "Empty CSV" in str(error):
                return
            raise LogError(f"{self._file.name}: {error}") from error

    def _lines(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The text in UTF-8, from the header or the first row on."""
        left = self._dialect.skipped
        for chunk in as_utf8(chunks, self._dialect.encoding):
            while left and (end := chunk.find(b"\n")) >= 0:
                chunk, left = chunk[end + 1 :], left - 1
            if not left:
                yield chunk

    def _skip(self, row: arrow_csv.InvalidRow) -> str:
        if row.text.strip():
            self.malformed.add(f"{row.actual_columns} columns instead of {row.expected_columns}: {row.text!r}")
        return "skip"

    def places(self, rows: Collection[int]) -> Mapping[int, str]:
        dialect, found, count = self._dialect, {}, 0
        last = max(rows, default=-1)
        with closing(self._file.chunks()) as chunks:
            lines = _text_lines(_at_most(self._lines(chunks), _SEARCHED_BYTES))
            reader = csv.reader(
                (line.replace(dialect.delimiter, _SEPARATOR) for line in lines),
                delimiter=_SEPARATOR,
                quoting=csv.QUOTE_NONE if dialect.quote == "none" else csv.QUOTE_MINIMAL,
                quotechar="'" if dialect.quote == "single" else '"',
                doublequote=not dialect.escaped,
                escapechar="\\" if dialect.escaped else None,
            )
            before = dialect.skipped
            for number, row in enumerate(reader):
                if number or not dialect.header:
                    if len(row) == len(dialect.names):
                        if count in rows:
                            found[count] = f"line {before + 1:,}"
                        count += 1
                    if count > last:
                        break
                before = dialect.skipped + reader.line_num
        return found


class _ChunkStream(io.RawIOBase):
    """Chunks as a file that Arrow can read; `error` is the error that ended the chunks, if any."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, count = [self._rest], len(self._rest)
        try:
            while count < size or size < 0:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                parts.append(chunk)
                count += len(chunk)
        except Exception as error:
            self.error = error
            raise
        found = b"".join(parts)
        size = len(found) if size < 0 else size
        self._rest = found[size:]
        return found[:size]


def _decoded(rows: pa.Array, columns: Sequence[pa.Array]) -> pa.RecordBatch:
    """Binary columns as text; a row with bytes that are not UTF-8 has a fault."""
    try:
        return batch(rows, [column.cast(pa.string()) for column in columns])
    except pa.ArrowInvalid:
        broken = np.zeros(len(rows), bool)
        texts = []
        for column in columns:
            text = [_text(value) for value in column.to_pylist()]
            broken |= np.array([value is None for value in text], dtype=bool)
            texts.append(pa.array(text, pa.string()))
        faults = pa.array(np.where(broken, "not UTF-8, perhaps --encoding latin-1", ""), pa.string())
        return batch(rows, texts, pa.compute.if_else(pa.array(broken), faults, None))


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _replaced(chunks: Iterator[bytes], old: bytes, new: bytes) -> Iterator[bytes]:
    held = b""
    for chunk in chunks:
        data = (held + chunk).replace(old, new)
        keep = next((size for size in range(len(old) - 1, 0, -1) if data.endswith(old[:size])), 0)
        held = data[len(data) - keep :]
        yield data[: len(data) - keep]
    yield held


def _at_most(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:count]
        count -= len(chunk)
        if count <= 0:
            return


def _text_lines(chunks: Iterator[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chain(chunks, (b"",)):
        *lines, rest = (rest + chunk).split(b"\n") if chunk else [rest, b""]
        for line in lines:
            yield line.decode(errors="replace") + "\n"
