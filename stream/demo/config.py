"""The configuration of a demo."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from stream.sources.log.options import LogOptions

__all__ = ["DemoConfig"]


@dataclass(frozen=True)
class DemoConfig:
    log: Path | None = None
    """File with a real log to replay; a simulated world without it."""
    seconds: float = 150.0
    """How long events flow; a log is spread over this time."""
    events_per_second: float = 200.0
    """Simulated events per second."""
    broken_share: float = 0.002
    """Share of broken records among the simulated ones."""
    round_seconds: float = 15.0
    """Time between two fine-tuning rounds."""
    seed: int = 0
    """Seed of the simulated world: the same seed, the same world."""
    options: LogOptions = field(default_factory=LogOptions)

    def __post_init__(self) -> None:
        for name in ("seconds", "events_per_second", "round_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.broken_share < 1:
            raise ValueError(f"broken_share must be in [0, 1), got {self.broken_share}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
