"""The configuration of a backtest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from model.config import PRESETS
from ops.monitor.windows import WindowConfig
from stream.scorer.config import ListConfig
from stream.trainer.config import TrainerConfig

__all__ = ["ARMS", "BacktestConfig", "BacktestError", "Interrupted"]

ARMS = ("fresh-popularity", "item-item", "ease-recent", "system", "frozen", "retrained")

_DAY_SECONDS = 86_400.0


class BacktestError(ValueError):
    """The backtest cannot begin or continue; the message says what to do."""


class Interrupted(Exception):
    """The backtest was stopped; its progress is saved, and the same command continues it."""


@dataclass(frozen=True)
class BacktestConfig:
    """`arms` are names of `ARMS`, or `preset:NAME` for the system with another model. Raises ValueError.

    `trainer` and `lists` are the settings of the system's own processes; the trainer's times are in event time.
    """

    arms: tuple[str, ...] = ARMS
    round_days: float = 7.0  # event time between rounds on schedule, in place of the trainer's `round_seconds`
    batch_events: int = 64  # answered with the same state of the models and the counts
    checkpoint_events: int = 10_000
    history_items: int = 200
    windows: WindowConfig | None = None  # of the drift monitor; None chooses them by the log
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    lists: ListConfig = field(default_factory=ListConfig)

    def __post_init__(self) -> None:
        for name in ("round_days", "batch_events", "checkpoint_events", "history_items"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for arm in self.arms:
            if arm not in ARMS and (not arm.startswith("preset:") or arm.removeprefix("preset:") not in PRESETS):
                presets = ", ".join(sorted(PRESETS))
                raise ValueError(f"no arm {arm!r}; there are {', '.join(ARMS)}, and preset:NAME of {presets}")

    @property
    def names(self) -> tuple[str, ...]:
        """All arms. The system is always one of them: its rounds determine when the others are fitted."""
        return tuple(dict.fromkeys((*self.arms, "system")))

    def trainer_of(self, folder: Path, windows: WindowConfig) -> TrainerConfig:
        """The settings of a system's trainer. There is no canary: a log has no users who could try a model."""
        return replace(
            self.trainer,
            state_dir=folder,
            artifacts="",
            round_seconds=self.round_days * _DAY_SECONDS,
            canary_share=0.0,
            closed_loop=replace(self.trainer.closed_loop, windows=windows),
        )

    def fingerprint(self) -> str:
        """Equal for settings that give equal ranks."""
        told = replace(
            self, checkpoint_events=1, trainer=replace(self.trainer, state_dir=Path(), threads=0, device=None)
        )
        return msgspec.json.encode(told, order="deterministic", enc_hook=str).decode()
