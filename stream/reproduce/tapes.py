"""The journals of scorers, and which of their segments has a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stream.scorer.journal import Batch, JournalError, SegmentStart, read_batches, read_start

__all__ = ["Segment", "Tapes"]


class Segment(NamedTuple):
    """One file of a journal."""

    tape: Path
    start: SegmentStart
    first: int  # number of its first batch
    last: int

    def batches(self) -> Iterator[Batch]:
        """The batches of the segment, in order. Raises `JournalError`."""
        return read_batches(self.tape)


class Tapes:
    """All journals below some folders of scorers."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = tuple(folders)
        self._paths: dict[str, list[Path]] = {}  # by life
        for path in sorted({path.resolve() for folder in self.folders for path in folder.rglob("*-?????.tape")}):
            self._paths.setdefault(path.stem.rpartition("-")[0], []).append(path)
        self._segments: dict[str, list[Segment]] = {}

    @property
    def lives(self) -> list[str]:
        return list(self._paths)

    def segments(self, life: str) -> list[Segment]:
        """The segments of a life that have a batch, in order. Raises `JournalError`."""
        if life not in self._segments:
            found = []
            for path in self._paths.get(life, ()):
                numbers = [batch.number for batch in read_batches(path)]
                if numbers:
                    found.append(Segment(path, read_start(path), numbers[0], numbers[-1]))
            self._segments[life] = found
        return self._segments[life]

    def holding(self, life: str, number: int) -> Segment:
        """The segment of a batch. Raises `JournalError`."""
        for segment in self.segments(life):
            if segment.first <= number <= segment.last:
                return segment
        where = ", ".join(map(str, self.folders))
        if life not in self._paths:
            raise JournalError(f"the journal {life} of its scorer is not below {where}")
        raise JournalError(f"batch {number} of the journal {life} below {where} is gone: it is kept journal_hours long")

    def batch_with(self, partition: int, offset: int, until_ms: int) -> tuple[str, Batch] | None:
        """(life, batch) of the last batch up to `until_ms` that took this refresh."""
        found: tuple[str, Batch] | None = None
        for life in self.lives:
            for segment in self.segments(life):
                for batch in segment.batches():
                    if batch.clock_ms > until_ms or (found is not None and batch.clock_ms < found[1].clock_ms):
                        continue
                    if any(p == partition and first <= offset < first + count for p, first, count in batch.taken):
                        found = life, batch
        return found
