"""What the readers of the three kinds of files have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from stream.sources.log.opening import OnBytes

__all__ = ["EXAMPLES", "SAMPLED_VALUES", "Columns", "Malformed", "RowFile", "batch"]

EXAMPLES = 5  # of malformed rows
SAMPLED_VALUES = 1000  # of each column, by which its role is recognised


@dataclass(frozen=True)
class Columns:
    """The columns of a file: their names, and their first values, where they have any."""

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]  # of each column, its first values that are not empty
    empty: tuple[float, ...]  # of each column, the share of the first rows in which it is empty
    first: tuple[int, ...]  # of each column, the row of its first value, or 0
    named: bool = True  # False: the names are positions


@dataclass
class Malformed:
    """Rows that cannot be parsed: their number, and the first few as examples."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append(example[:200])


class RowFile(Protocol):
    """One file of a log. Row numbers rise in the order of the file and may have gaps."""

    malformed: Malformed
    line_breaks: bool
    """Whether some rows take several lines of text; known after all rows have been read."""

    @property
    def words(self) -> str:
        """The kind of the file, for the user."""

    def columns(self, on_bytes: OnBytes) -> Columns:
        """The columns of the file and their first values. Raises `LogError`."""

    def batches(self, positions: Sequence[int], on_bytes: OnBytes) -> Iterator[pa.RecordBatch]:
        """The columns at these positions as strings, called "0", "1", ..., between `row` (int64) and `fault` (string:
        why the row is of no use, else null). Raises `LogError`."""

    def places(self, rows: Collection[int]) -> Mapping[int, str]:
        """The places of rows, for the user: "line 17". Those of rows far into a large file may be missing."""


def batch(rows: pa.Array, columns: Sequence[pa.Array], faults: pa.Array | None = None) -> pa.RecordBatch:
    faults = pa.nulls(len(rows), pa.string()) if faults is None else faults
    names = ["row", *map(str, range(len(columns))), "fault"]
    return pa.RecordBatch.from_arrays([rows, *columns, faults], names)
