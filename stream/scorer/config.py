"""What a scorer may be told; every default is stated here and nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from ops.monitor.quality import QualityConfig
from ops.monitor.windows import WindowConfig
from state.store import StoreConfig
from stream.scorer.catalogue import CatalogueConfig
from stream.wire.meaning import EventKinds
from stream.wire.topics import SCORER_GROUP

__all__ = ["ListConfig", "ListSignalsConfig", "ScorerConfig"]

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class ListSignalsConfig:
    judged_per_second: float = 500.0  # most users whose last list is judged by their new events
    shadow_per_second: float = 20.0  # most users also ranked by the previous model
    figures_share: float = 0.05  # share of the users whose lists give coverage and the other figures
    distance_every: int = 10  # every tenth of those lists also gives the distance between its items
    windows: WindowConfig = field(default_factory=WindowConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)

    def __post_init__(self) -> None:
        for name in ("judged_per_second", "shadow_per_second"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number from 0 on, got {getattr(self, name)}")
        if not 0 <= self.figures_share <= 1:
            raise ValueError(f"figures_share must be in [0, 1], got {self.figures_share}")
        if self.distance_every < 1:
            raise ValueError(f"distance_every must be at least 1, got {self.distance_every}")


@dataclass(frozen=True)
class ListConfig:
    list_items: int = 20  # length of a recommended list
    popularity_half_life_ms: int = 7 * _DAY_MS  # event time
    shown_ms: int = 30 * _DAY_MS  # a list older than this says nothing about the model
    events: EventKinds = field(default_factory=EventKinds)  # what each kind of event means
    items: CatalogueConfig = field(default_factory=CatalogueConfig)
    signals: ListSignalsConfig = field(default_factory=ListSignalsConfig)

    def __post_init__(self) -> None:
        for name in ("list_items", "popularity_half_life_ms", "shown_ms"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class ScorerConfig:
    state_dir: Path
    group: str = SCORER_GROUP
    batch_refreshes: int = 512  # most refreshes scored together
    session_seconds: float = 30.0  # silence after which the group gives this worker's partitions away
    stall_seconds: float = 60.0  # time without progress after which the process ends, for its supervisor to restart it
    torch_threads: int = 1
    lists: ListConfig = field(default_factory=ListConfig)
    store: StoreConfig = field(default_factory=StoreConfig)

    def __post_init__(self) -> None:
        for name in ("batch_refreshes", "session_seconds", "stall_seconds", "torch_threads"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
