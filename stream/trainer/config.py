"""Every setting of a trainer with its default, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from model.rerank.choice import ChoiceConfig
from ops.monitor.closed_loop import ClosedLoopConfig
from state.store import StoreConfig
from stream.itemlists.config import ItemListsConfig
from stream.trainer.fine_tune import FineTuneConfig
from stream.wire.catalogue import CatalogueConfig
from stream.wire.topics import SCORER_GROUP, UPDATER_GROUP

__all__ = ["TrainerConfig"]


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of one trainer. Raises ValueError that names the value it cannot use."""

    state_dir: Path = Path("freshet-state/trainer")
    """Folder of this trainer's local state: its view of `histories`, and what the closed loop decided."""
    artifacts: str = ""
    """Address of the models (fsspec): a folder, s3://..., gs://...; a folder in state_dir when empty."""
    keep_versions: int = 5
    """Models kept besides those in service."""
    device: str | None = None
    """Where models are trained: cpu, cuda, cuda:1, ...; CUDA when there is one."""
    threads: int = 0
    """Threads of torch on the CPU; 0 leaves the number to torch."""
    spare_time_only: bool = True
    """Trains only while no other process wants the core. Switch it off on a machine that is always busy."""
    round_seconds: float = 600.0
    """Time between two fine-tuning rounds."""
    least_interactions: int = 200
    """Interactions since the last round; with fewer, the schedule skips a round."""
    first_users: int = 100
    """Users that the first model waits for."""
    first_interactions: int = 2_000
    """Interactions that the first model waits for."""
    changed_users: int = 20_000
    """Most users of a round whose history has changed. A history of 200 items takes about 20 kB of memory."""
    replay_users: int = 20_000
    """Other users of a round, drawn again each time, so that nothing is unlearnt."""
    seed: int = 0
    """Seed of the trainer's random choices."""
    fine_tune: FineTuneConfig = field(default_factory=FineTuneConfig)
    reranker: ChoiceConfig = field(default_factory=ChoiceConfig)
    canary_share: float = 0.1
    """Share of the users, by hash, that a new model answers first beside the live model; 0 promotes it at once."""
    canary_events: int = 2_000
    """Events that the canary answers, without evidence against it, before it goes live."""
    canary_seconds: float = 1_800.0
    """Time after which the canary goes live too: few users cannot hold a model back."""
    updater_group: str = UPDATER_GROUP
    scorer_group: str = SCORER_GROUP
    closed_loop: ClosedLoopConfig = field(default_factory=ClosedLoopConfig)
    items: CatalogueConfig = field(default_factory=CatalogueConfig)
    item_lists: ItemListsConfig = field(default_factory=ItemListsConfig)
    store: StoreConfig = field(default_factory=StoreConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.canary_share < 1:
            raise ValueError(f"canary_share must be in [0, 1), got {self.canary_share}")
        for name in (
            "round_seconds",
            "first_users",
            "first_interactions",
            "changed_users",
            "keep_versions",
            "canary_events",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("threads", "least_interactions", "replay_users"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def enough(self, *, first: bool, changed_users: int, new_interactions: int, left_unlearnt: int) -> bool:
        """Whether there is enough to learn for a round on schedule.

        `first`: there is no model, and no round has run. `left_unlearnt` of the new interactions were seen by a round
        whose candidate was not published.
        """
        if first:
            return changed_users >= self.first_users and new_interactions >= self.first_interactions
        return new_interactions - left_unlearnt >= max(self.least_interactions, 1)

    @property
    def artifacts_url(self) -> str:
        return self.artifacts or str(self.state_dir.absolute() / "artifacts")
