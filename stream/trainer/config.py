"""What a trainer is told: every setting with its default, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ops.monitor.closed_loop import ClosedLoopConfig
from state.store import StoreConfig
from stream.trainer.fine_tune import FineTuneConfig
from stream.wire.topics import SCORER_GROUP, UPDATER_GROUP

__all__ = ["TrainerConfig"]


@dataclass(frozen=True)
class TrainerConfig:
    """Settings of one trainer. Raises ValueError that names the value it cannot use."""

    state_dir: Path  # of this trainer alone: its view of `histories`, and what the closed loop decided
    artifacts: str = ""  # the fsspec URL of the models; a folder in state_dir when empty
    keep_versions: int = 5  # artifacts kept besides those that a slot names
    device: str | None = None  # cpu, cuda, cuda:1, ...; CUDA when there is one
    threads: int = 0  # of torch; 0 leaves the number to torch
    spare_time_only: bool = True  # runs only while nobody else wants the core, above all no scorer
    round_seconds: float = 600.0
    least_interactions: int = 200  # new since the last round; with fewer, the schedule skips a round
    first_users: int = 100  # the first model waits for these
    first_interactions: int = 2_000
    # A round holds these in memory, about 20 kB for a history of 200 items.
    changed_users: int = 20_000  # at most
    replay_users: int = 20_000  # of the others, drawn again for each round, so that nothing is unlearnt
    seed: int = 0
    fine_tune: FineTuneConfig = field(default_factory=FineTuneConfig)
    # A new model first answers this share of the users, by hash, beside the live model: it is the canary. With 0 a new
    # model goes live at once.
    canary_share: float = 0.0
    canary_events: int = 2_000  # events that the canary answered, without evidence against it, after which it goes live
    canary_seconds: float = 1_800.0  # after which it goes live too: few users cannot hold a model back for ever
    updater_group: str = UPDATER_GROUP
    scorer_group: str = SCORER_GROUP
    closed_loop: ClosedLoopConfig = field(default_factory=ClosedLoopConfig)
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

    @property
    def artifacts_url(self) -> str:
        return self.artifacts or str(self.state_dir.absolute() / "artifacts")
