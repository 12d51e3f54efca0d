"""What an updater holds of one partition, above RocksDB: merged, and not yet made durable by a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from state.store import Store
from stream.wire.records import InputRecord, Rejected

__all__ = ["OwnedPartition"]


@dataclass
class Unsaved:
    """What merged records brought."""

    positions: dict[str, int]  # by topic: the offset after the last of them
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


@dataclass
class OwnedPartition:
    store: Store
    committed: dict[str, int]  # by topic: the offset after the last record of a checkpoint
    unsaved: Unsaved
    leaving: Unsaved  # what the checkpoint under way carries
    newest_ms: int = 0  # event time

    @classmethod
    def starting(cls, store: Store, offsets: dict[str, int]) -> OwnedPartition:
        return cls(store, offsets, Unsaved(offsets.copy()), Unsaved({}))

    @property
    def moved(self) -> bool:
        """There is something for a checkpoint."""
        return self.unsaved.positions != self.committed

    def unsaved_history(self, user: bytes) -> bytes | None:
        """Encoded, of a user whom RocksDB may not know so well."""
        return self.unsaved.histories.get(user) or self.leaving.histories.get(user)

    def set_out(self) -> None:
        """A checkpoint begins."""
        self.leaving, self.unsaved = self.unsaved, Unsaved(self.unsaved.positions.copy())

    def turn_back(self) -> None:
        """It was refused: what it carried goes with the next."""
        self.leaving, self.unsaved = Unsaved({}), self.leaving.followed_by(self.unsaved)

    def arrive(self) -> None:
        """It is done, RocksDB included."""
        self.committed, self.leaving = self.leaving.positions, Unsaved({})
