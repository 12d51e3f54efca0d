"""What the merged records of one partition brought, until a checkpoint has made it durable."""

from __future__ import annotations

from dataclasses import dataclass, field

from stream.ingest import InputRecord
from stream.records import Rejected

__all__ = ["Unsaved"]


@dataclass
class Unsaved:
    positions: dict[str, int]  # by topic: the offset after the last merged record
    histories: dict[bytes, bytes] = field(default_factory=dict)  # by user, encoded
    arrivals_ms: list[int] = field(default_factory=list)  # of the events behind them
    dead: list[tuple[InputRecord, Rejected]] = field(default_factory=list)
    routed: list[tuple[InputRecord, int]] = field(default_factory=list)  # with the partition they belong to

    @property
    def records(self) -> int:
        """How many a checkpoint writes."""
        return len(self.histories) + len(self.dead) + len(self.routed)

    def followed_by(self, later: Unsaved) -> Unsaved:
        """Both, for one checkpoint. A history in `later` was merged from the one here and stands for it."""
        return Unsaved(
            later.positions,
            self.histories | later.histories,
            self.arrivals_ms + later.arrivals_ms,
            self.dead + later.dead,
            self.routed + later.routed,
        )
