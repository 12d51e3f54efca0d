"""The settings of an updater."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from ops.monitor.windows import WindowConfig
from state.store import StoreConfig
from stream.clients.names import check_member_name
from stream.updater.rescoring import RescoringConfig
from stream.updater.routing import Repartition
from stream.wire.mapping import InputMapping
from stream.wire.records import Limits
from stream.wire.topics import UPDATER_GROUP

__all__ = ["UpdaterConfig"]


@dataclass(frozen=True)
class UpdaterConfig:
    state_dir: Path = Path("freshet-state/updater")
    """Folder of this updater's local state. One process, one folder."""
    worker: str = ""
    """Name of this worker: unique, and the same after a restart, for which its partitions then wait instead of moving.
    Without one they move when it ends."""
    group: str = UPDATER_GROUP
    history_items: int = 200
    """Newest items kept per user."""
    checkpoint_seconds: float = 1.0
    """Time between two durable checkpoints."""
    checkpoint_users: int = 20_000
    """Changed users, or refreshes in flight, that make a checkpoint due early. As many may be in the one under way."""
    poll_records: int = 5_000
    """Most records of one poll."""
    poll_seconds: float = 0.1
    """Longest wait for a record, and so for a signal."""
    turn_seconds: float = 0.012
    """Least time from one poll that brought something to the next."""
    session_seconds: float = 30.0
    """Silence after which the group gives this worker's partitions to others."""
    transaction_seconds: float = 15.0
    """Time after which the broker aborts a transaction that its worker left open."""
    keep_released_seconds: float = 600.0
    """How long the histories of a partition that moved away stay on this disk, where nobody is forgotten any more."""
    repartition: Repartition = "off"
    """strict sends an event that lies in another partition than its user's (murmur2 of the key) there; off does not."""
    limits: Limits = field(default_factory=Limits)
    input: InputMapping = field(default_factory=InputMapping)
    rescoring: RescoringConfig = field(default_factory=RescoringConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)

    def __post_init__(self) -> None:
        for name in ("history_items", "checkpoint_seconds", "checkpoint_users", "poll_records", "session_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.worker:
            check_member_name(self.worker)
        if self.repartition not in get_args(Repartition):
            raise ValueError(f"repartition must be one of {get_args(Repartition)}, got {self.repartition!r}")
        if self.input.key == "any" and self.repartition != "strict":
            raise ValueError(
                "[input] key = any spreads a user's events over the partitions: set repartition to strict, too, which "
                "sends them to where the user belongs"
            )
        for name in ("turn_seconds", "keep_released_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.transaction_seconds < 1:
            raise ValueError(f"transaction_seconds must be at least 1, got {self.transaction_seconds}")
