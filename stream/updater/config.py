"""What an updater is told."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from ops.monitor.windows import WindowConfig
from state.store import StoreConfig
from stream.updater.rescoring import RescoringConfig
from stream.updater.routing import Repartition
from stream.wire.records import Limits
from stream.wire.topics import UPDATER_GROUP

__all__ = ["UpdaterConfig"]


@dataclass(frozen=True)
class UpdaterConfig:
    state_dir: Path
    worker: str = field(default_factory=socket.gethostname)  # names its transactions: unique, and stable over restarts
    group: str = UPDATER_GROUP
    history_items: int = 200  # newest items kept per user
    checkpoint_seconds: float = 1.0
    # Changed users, or refreshes in flight, that make a checkpoint due early. As many may be in the one under way.
    checkpoint_users: int = 20_000
    poll_records: int = 5_000
    poll_seconds: float = 0.1  # longest wait for a record, and so for a signal
    turn_seconds: float = 0.012  # least time from one poll that brought something to the next
    session_seconds: float = 30.0  # silence after which the group gives this worker's partitions away
    transaction_seconds: float = 15.0
    repartition: Repartition = "off"  # strict: events that lie in another partition than their user's are sent there
    limits: Limits = field(default_factory=Limits)
    rescoring: RescoringConfig = field(default_factory=RescoringConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)

    def __post_init__(self) -> None:
        for name in ("history_items", "checkpoint_seconds", "checkpoint_users", "poll_records", "session_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.repartition not in get_args(Repartition):
            raise ValueError(f"repartition must be one of {get_args(Repartition)}, got {self.repartition!r}")
        if self.turn_seconds < 0:
            raise ValueError(f"turn_seconds must not be negative, got {self.turn_seconds}")
        if self.transaction_seconds < 1:
            raise ValueError(f"transaction_seconds must be at least 1, got {self.transaction_seconds}")
