"""The settings of a scorer; every default is stated here and nowhere else."""

from __future__ import annotations

import math
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec

from model.variety import VarietyConfig
from ops.monitor.quality import QualityConfig
from ops.monitor.windows import WindowConfig
from state.store import StoreConfig
from stream.clients.names import check_member_name
from stream.scorer.second_stage import SecondStageConfig
from stream.wire.catalogue import CatalogueConfig
from stream.wire.meaning import EventKinds
from stream.wire.topics import SCORER_GROUP

__all__ = ["ListConfig", "ListSignalsConfig", "ScorerConfig", "settings_digest"]

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class ListSignalsConfig:
    judged_per_second: float = 500.0
    """Most users per second whose last list is judged by their new events; 0 judges no list."""
    shadow_per_second: float = 20.0
    """Most users per second who are also ranked by the previous model; 0 for none."""
    figures_share: float = 0.05
    """Share of the users whose lists give coverage, novelty and the other figures of lists."""
    distance_every: int = 10
    """Every n-th of those lists also gives the distance between its items."""
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
    list_items: int = 20
    """Length of a recommended list."""
    explain: int = 0
    """Most reasons given with each item of a list: the items met that raised its score most. 0 gives none and costs
    nothing. Lists in a reranker's order have none."""
    popularity_half_life_ms: int = 7 * _DAY_MS
    """Half-life of popularity, in event time."""
    shown_ms: int = 30 * _DAY_MS
    """Age after which a list says nothing about the model any more."""
    events: EventKinds = field(default_factory=EventKinds)
    items: CatalogueConfig = field(default_factory=CatalogueConfig)
    signals: ListSignalsConfig = field(default_factory=ListSignalsConfig)
    second_stage: SecondStageConfig = field(default_factory=SecondStageConfig)
    variety: VarietyConfig = field(default_factory=VarietyConfig)

    @property
    def chosen_from(self) -> int:
        """How many of the best items a list is chosen from."""
        return max(self.list_items, self.variety.candidates) if self.variety.on else self.list_items

    @property
    def candidates(self) -> int:
        """How many items a model lists for its reranker to order."""
        return max(self.chosen_from, self.second_stage.candidates.model)

    def __post_init__(self) -> None:
        if self.explain < 0:
            raise ValueError(f"explain must not be negative, got {self.explain}")
        for name in ("list_items", "popularity_half_life_ms", "shown_ms"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def settings_digest(lists: ListConfig) -> int:
    """A 32-bit checksum of the settings that decide what stands in a list."""
    stage = lists.second_stage.candidates
    kinds = sorted((name, asdict(kind)) for name, kind in lists.events.kinds.items())
    decisive = [lists.list_items, lists.popularity_half_life_ms, kinds, asdict(lists.items), asdict(stage)]
    if lists.variety.on:  # a scorer without variety keeps the digest that it had before this setting existed
        decisive.append(asdict(lists.variety))
    return zlib.crc32(msgspec.json.encode(decisive))


@dataclass(frozen=True)
class ScorerConfig:
    state_dir: Path = Path("freshet-state/scorer")
    """Folder of this scorer's local state. One process, one folder."""
    device: str | None = None
    """Where models run: cpu, cuda, cuda:1, ...; CUDA when there is one."""
    group: str = SCORER_GROUP
    worker: str = ""
    """Name of this worker in its group: unique, and the same after a restart, which then serves again at once. Without
    one, its partitions move when it ends."""
    batch_refreshes: int = 512
    """Most refreshes that are scored together."""
    session_seconds: float = 30.0
    """Silence after which the group gives this worker's partitions to others."""
    former_seconds: float = 600.0
    """Time after which the last lists of a partition that moved away are destroyed."""
    stall_seconds: float = 60.0
    """Time without progress after which the process ends, for its supervisor to restart it."""
    journal_hours: float = 24.0
    """How long it stays known which refreshes were counted before each list, so that `freshet reproduce` can make lists
    by popularity or by a reranker again; `refreshes` is kept for a day. 0 keeps nothing."""
    torch_threads: int = 1
    """Threads of torch on the CPU."""
    lists: ListConfig = field(default_factory=ListConfig)
    store: StoreConfig = field(default_factory=StoreConfig)

    def __post_init__(self) -> None:
        if self.worker:
            check_member_name(self.worker)
        if not 0 <= self.journal_hours < 1e5:
            raise ValueError(f"journal_hours must be from 0 to 100,000, got {self.journal_hours}")
        for name in ("batch_refreshes", "session_seconds", "former_seconds", "stall_seconds", "torch_threads"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
