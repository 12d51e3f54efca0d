"""Parquet files. Their columns are read as text, so that the same rules apply to all kinds of logs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from stream.sources.log.opening import LogFile, OnBytes
from stream.sources.log.options import LogError
from stream.sources.log.rows import SAMPLED_VALUES, Columns, Malformed, batch

__all__ = ["ParquetFile"]

_BATCH_ROWS = 64 * 1024


class ParquetFile:
    """A `RowFile` of parquet. Each field of a struct is a column with a dotted name: `properties.product_id`."""

    words = "parquet"

    def __init__(self, file: LogFile, folder: Path) -> None:
        self._file = file
        self.malformed = Malformed()
        self.line_breaks = False
        try:
            self._path = file.on_disk(folder)
            with parquet.ParquetFile(self._path) as found:
                self._names, self._kinds = _leaves(found.schema_arrow)
        except pa.ArrowException as error:
            raise LogError(f"{file.name}: {error}") from error

    def columns(self, on_bytes: OnBytes) -> Columns:
        values: list[list[str]] = [[] for _ in self._names]
        empty = np.zeros(len(self._names))
        rows, first = 0, [0] * len(self._names)
        for found in self.batches(range(len(self._names)), on_bytes):
            for position in range(len(self._names)):
                column = found.column(position + 1)
                empty[position] += column.null_count
                room = SAMPLED_VALUES - len(values[position])
                if not values[position] and column.null_count < len(column):
                    first[position] = rows + pc.index(pc.is_valid(column), True).as_py()
                values[position] += column.drop_null().slice(0, room).to_pylist()
            rows += len(found)
            if rows >= 20 * SAMPLED_VALUES or all(map(len, values)):
                break
        return Columns(tuple(self._names), tuple(map(tuple, values)), tuple(empty / max(rows, 1)), tuple(first))

    def batches(self, positions: Sequence[int], on_bytes: OnBytes) -> Iterator[pa.RecordBatch]:
        names = [self._names[position] for position in positions]
        kinds = [self._kinds[position] for position in positions]
        size, start = self._path.stat().st_size, 0
        try:
            with parquet.ParquetFile(self._path, pre_buffer=False) as file:
                total = max(file.metadata.num_rows, 1)
                for found in file.iter_batches(_BATCH_ROWS, columns=sorted(set(names))):
                    columns = [_as_text(_leaf(found, name), kind) for name, kind in zip(names, kinds, strict=True)]
                    yield batch(pa.array(np.arange(start, start + len(found))), columns)
                    start += len(found)
                    on_bytes(size * start // total)
        except (pa.ArrowException, OSError) as error:
            raise LogError(f"{self._file.name}: {error}") from error

    def places(self, rows: Collection[int]) -> Mapping[int, str]:
        return {row: f"row {row + 1:,}" for row in rows}


def _leaves(schema: pa.Schema) -> tuple[list[str], list[pa.DataType]]:
    """Dotted names and types of all columns that hold plain values."""
    names, kinds = [], []
    fields = [(field.name, field.type) for field in schema]
    while fields:
        name, kind = fields.pop(0)
        if pa.types.is_struct(kind):
            fields = [(f"{name}.{inner.name}", inner.type) for inner in kind] + fields
        elif not pa.types.is_nested(kind):
            names.append(name)
            kinds.append(kind)
    return names, kinds


def _leaf(found: pa.RecordBatch, name: str) -> pa.Array:
    if name in found.schema.names:
        return found[name]
    top, *inner = name.split(".")
    column = found[top]
    for part in inner:
        column = pc.struct_field(column, part)  # null where the struct is null
    return column


def _as_text(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return _as_text(column.dictionary_decode(), kind.value_type)
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), 2.0**53))
        integers = pc.if_else(whole, column, 0.0).cast(pa.int64()).cast(pa.string())
        text = pc.if_else(whole, integers, column.cast(pa.string()))
        return pc.if_else(pc.is_nan(column), None, text)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([None if value is None else value.decode(errors="replace") for value in column.to_pylist()])
    if pa.types.is_timestamp(kind) and kind.tz not in (None, "UTC"):
        column = column.cast(pa.timestamp(kind.unit, "UTC"))
    return column.cast(pa.string())
