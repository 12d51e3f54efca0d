"""One partition of an updater: its data that is not yet in RocksDB, and its state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from state.store import Store
from stream.updater.cursor import NO_MODEL, RescoringCursor
from stream.wire.records import InputRecord, Rejected

__all__ = ["IllegalTransition", "PartitionTask", "TaskState", "Unsaved"]

TaskState = Literal["assigned", "restoring", "running", "released"]

_NEXT: dict[TaskState, tuple[TaskState, ...]] = {
    "assigned": ("restoring", "released"),
    "restoring": ("running", "released"),
    "running": ("released",),
    "released": (),
}


class IllegalTransition(RuntimeError):
    """A partition was asked for what its state does not allow: a fault of the updater, which must end and replay."""


@dataclass
class Unsaved:
    """The results of merged records that no checkpoint has made durable, and the offsets that the records reach."""

    positions: dict[str, int]  # by topic: the offset after the last merged record
    cursor: RescoringCursor = NO_MODEL  # the users who have been sent to be scored again
    histories: dict[bytes, bytes] = field(default_factory=dict)  # by user, encoded
    arrivals_ms: list[int] = field(default_factory=list)  # of the events behind these histories
    dead: list[tuple[InputRecord, Rejected]] = field(default_factory=list)
    routed: list[tuple[InputRecord, int]] = field(default_factory=list)  # with the partition they belong to

    @property
    def records(self) -> int:
        """How many records a checkpoint writes."""
        return len(self.histories) + len(self.dead) + len(self.routed)

    def followed_by(self, later: Unsaved) -> Unsaved:
        """Both, for one checkpoint. A history in `later` was merged from the user's history here, and replaces it."""
        return Unsaved(
            later.positions,
            later.cursor,
            self.histories | later.histories,
            self.arrivals_ms + later.arrivals_ms,
            self.dead + later.dead,
            self.routed + later.routed,
        )


class PartitionTask:
    """
        assigned ---restore---> restoring ---run---> running
            |                       |                   |
            +-------release---------+------release------+-----> released

    assigned    the group gave the partition to this worker; it is not read yet
    restoring   its offsets are known, its store is open and follows the changelog
    running     the store has caught up: records are merged, and checkpoints carry what they brought
    released    the partition belongs to another worker, its store is closed. If it returns, it gets a new task

    A checkpoint moves `unsaved` to `in_flight` (`begin_checkpoint`). It ends with everything durable (`complete`), or
    it is refused, and then the next checkpoint writes its content, too (`requeue`). A call that the state does not
    allow raises `IllegalTransition`.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.state: TaskState = "assigned"
        self.committed: dict[str, int] = {}  # by topic: the offset after the last record of a checkpoint
        self.committed_cursor = NO_MODEL
        self.unsaved = Unsaved({})
        self.in_flight = Unsaved({})  # what the checkpoint under way carries
        self.newest_ms = 0  # event time
        self._store: Store | None = None

    def _move(self, state: TaskState) -> None:
        if state not in _NEXT[self.state]:
            raise IllegalTransition(f"partition {self.number} is {self.state} and cannot become {state}")
        self.state = state

    @property
    def store(self) -> Store:
        if self._store is None:
            raise IllegalTransition(f"partition {self.number} is {self.state} and has no store")
        return self._store

    def restore(self, store: Store, committed: dict[str, int], cursor: RescoringCursor = NO_MODEL) -> None:
        """The store follows the changelog from now on; the task closes it when it is released."""
        self._move("restoring")
        self._store, self.committed, self.committed_cursor = store, committed, cursor

    def run(self, committed: dict[str, int]) -> None:
        """Records are read from now on, from these offsets and those that `restore` was given."""
        self._move("running")
        self.committed |= committed
        self.unsaved = Unsaved(self.committed.copy(), self.committed_cursor)

    def release(self) -> None:
        """Drop what no checkpoint has made durable, which the next owner replays, and close the store."""
        self._move("released")
        self.unsaved, self.in_flight = Unsaved({}), Unsaved({})
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def has_unsaved(self) -> bool:
        """There is something for a checkpoint."""
        unsaved = self.unsaved
        moved = unsaved.positions != self.committed or unsaved.cursor != self.committed_cursor
        return self.state == "running" and moved

    def unsaved_history(self, user: bytes) -> bytes | None:
        """The encoded history of a user, if it is newer than the one in RocksDB."""
        return self.unsaved.histories.get(user) or self.in_flight.histories.get(user)

    def begin_checkpoint(self) -> None:
        if self.state != "running" or self.in_flight.positions:
            raise IllegalTransition(f"partition {self.number} is {self.state}, or a checkpoint is under way")
        self.in_flight, self.unsaved = self.unsaved, Unsaved(self.unsaved.positions.copy(), self.unsaved.cursor)

    def requeue(self) -> None:
        """The checkpoint was refused: the next one writes its content, too."""
        self.unsaved = self._end_checkpoint().followed_by(self.unsaved)

    def complete(self) -> None:
        """The checkpoint is durable, RocksDB included."""
        durable = self._end_checkpoint()
        self.committed, self.committed_cursor = durable.positions, durable.cursor

    def _end_checkpoint(self) -> Unsaved:
        if not self.in_flight.positions:
            raise IllegalTransition(f"partition {self.number} is {self.state} and no checkpoint is under way")
        carried, self.in_flight = self.in_flight, Unsaved({})
        return carried
