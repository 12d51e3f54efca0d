"""The settings of the closed loop, and the state of its decisions, which is kept over a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from ops.labels import Trigger

__all__ = ["HOUR_MS", "LoopConfig", "LoopState", "Move", "ShutGate", "Step"]

HOUR_MS = 3_600_000

ShutGate = Literal["data_quality", "cooldown"]  # gates that keep a round from starting


@dataclass(frozen=True)
class LoopConfig:
    new_events: int = 5_000
    """Events since the last round that a round before its time needs."""
    cooldown_ms: int = 10 * 60 * 1000
    """Least time between two rounds before their time."""
    cooldown_rounds: float = 3.0
    """The same in durations of the last round; the longer of the two counts."""
    early_rounds: int = 4
    """Most rounds before their time, per hour."""
    many_signals: int = 4
    """Number of signals that drift at once from which on the feed counts as broken, not the world as changed."""
    many_windows: int = 16
    """Windows after which many drifting signals count as a changed world after all."""
    probation_rounds: int = 2
    """Rounds after a promotion in which a new model is watched more closely."""
    probation_ms: int = 6 * HOUR_MS
    """Time after a promotion in which a new model is watched more closely."""
    coverage: float = 0.5
    """Least share of the items over which the lists before the promotion were spread."""
    latency_ms: int = 10 * 60 * 1000
    """A latency alarm that begins within this time after a promotion is blamed on it."""
    closed_ms: int = HOUR_MS
    """Time without promotions after a rollback."""
    freeze_ms: int = 24 * HOUR_MS
    """Two rollbacks within this time freeze promotions."""
    suspect_windows: int = 8
    """Windows after a fault of the feed in which a drift that began in it is blamed on the fault."""
    absorb_windows: int = 2
    """Windows by which a drift may outlive the promotion that should have absorbed it."""

    def __post_init__(self) -> None:
        for name in (
            "new_events",
            "early_rounds",
            "many_signals",
            "many_windows",
            "probation_rounds",
            "absorb_windows",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.coverage < 1:
            raise ValueError(f"coverage must be in (0, 1), got {self.coverage}")


Step = Literal["promote", "roll_back", "begin_canary", "end_canary"]


class Move(msgspec.Struct, frozen=True):
    """A step of a model between the slots, as it was decided."""

    step: Step
    version: str  # of the model that is promoted, that begins or ends as canary, or that is live again
    at_ms: int
    trigger: Trigger = "schedule"  # of the round that made the model
    coverage: float = 0.0  # over how many items lists were spread before; 0: unknown


class LoopState(msgspec.Struct):
    """Times are event times in milliseconds. It has more than 15 attributes because it is the content of one file."""

    waiting: dict[Trigger, str] = {}  # why each trigger asks for a round
    skipped: dict[Trigger, ShutGate] = {}  # the gate that was last reported for each trigger
    round_ended_ms: int = 0
    round_took_ms: int = 0
    running: bool = False
    early_ms: list[int] = []  # when rounds before their time began, within the last hour
    live: str = ""
    previous: str = ""
    promoted_ms: int = 0
    probation_left: int = 0  # rounds; 0 when not on probation
    coverage_before: float = 0.0  # over how many items lists were spread before the promotion; 0: unknown
    closed_until_ms: int = 0
    rollbacks_ms: list[int] = []
    frozen: bool = False
    quarantined: list[str] = []
    refit: bool = False
    drifted_windows: int = 0  # windows in drift since a drift round was promoted
    many: int = 0  # windows in a row in which many signals drifted
    suspect: dict[str, int] = {}  # signals whose drift began in a fault -> good windows since it ended
    absorbing: bool = False  # a drift round was promoted, and its drift is not known to be gone
    moving: Move | None = None  # decided, and perhaps not done yet

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @staticmethod
    def decode(value: bytes) -> LoopState:
        """Raises `msgspec.DecodeError` for anything `encode` did not write."""
        return msgspec.json.decode(value, type=LoopState)
