"""Decides what may be promoted, and when a promoted model must be rolled back.

After a promotion the new model is on probation. On evidence against it, the previous model is live again, the new one
is quarantined, and promotions are closed for a while. A second rollback within a day freezes promotions until an
operator acknowledges the rollbacks.
"""

from __future__ import annotations

from dataclasses import dataclass

from ops.labels import RollbackReason
from ops.monitor.loop_state import LoopConfig, LoopState

__all__ = ["Probation", "RollBack"]

_QUARANTINED = 100  # versions remembered


@dataclass(frozen=True)
class RollBack:
    reason: RollbackReason
    why: str


class Probation:
    """Reads and writes its part of `state`. All methods take event time."""

    def __init__(self, config: LoopConfig, state: LoopState) -> None:
        self._config, self._state = config, state

    # -- what became of a model ----------------------------------------------------------------------------------------

    def promoted(self, version: str, now_ms: int, trigger: str = "schedule", coverage: float = 0.0) -> None:
        """`version` is live. `coverage`: over how many items the lists were spread before the promotion (0:
        unknown)."""
        state, config = self._state, self._config
        state.previous, state.live, state.promoted_ms = state.live, version, now_ms
        state.probation_left = config.probation_rounds if state.previous else 0
        state.coverage_before = coverage
        state.absorbing, state.drifted_windows = trigger == "drift", 0

    def adopt(self, live: str, previous: str) -> None:
        """These models are in service, but this loop did not promote them. There is no probation."""
        self._state.live, self._state.previous, self._state.probation_left = live, previous, 0

    def rolled_back(self, now_ms: int, by_hand: bool = False) -> None:
        """The previous model is live again. A manual rollback means that an operator is already looking, so promotions
        stay open."""
        state, config = self._state, self._config
        state.quarantined = [*state.quarantined, state.live][-_QUARANTINED:]
        state.live, state.previous = state.previous, ""
        state.probation_left = 0
        if by_hand:
            return
        state.closed_until_ms = now_ms + config.closed_ms
        state.rollbacks_ms = [at for at in state.rollbacks_ms if now_ms - at < config.freeze_ms] + [now_ms]
        state.frozen = state.frozen or len(state.rollbacks_ms) >= 2

    def acknowledge(self) -> None:
        """An operator has looked: promotions may go on."""
        self._state.frozen, self._state.closed_until_ms, self._state.rollbacks_ms = False, 0, []

    # -- what may happen next ------------------------------------------------------------------------------------------

    def promotions_closed(self, now_ms: int) -> str | None:
        """Why no model may be promoted; None when models may be."""
        if self._state.frozen:
            return "promotions are frozen after two rollbacks; acknowledge to reopen them"
        return "promotions are closed after a rollback" if now_ms < self._state.closed_until_ms else None

    def may_promote(self, parent: str, now_ms: int) -> str | None:
        """Why a finished candidate must not go live; None when it may."""
        closed = self.promotions_closed(now_ms)
        if closed is None and parent in self._state.quarantined:
            return f"its parent {parent} is quarantined"
        return closed

    @property
    def can_roll_back(self) -> bool:
        return bool(self._state.previous) and self._state.previous not in self._state.quarantined

    def on_probation(self, now_ms: int) -> bool:
        state = self._state
        return state.probation_left > 0 and now_ms - state.promoted_ms < self._config.probation_ms

    def judge(
        self,
        now_ms: int,
        *,
        evidence_ratio: float = 0.0,
        nonfinite: int = 0,
        coverage: float | None = None,
        latency_alarm_since_ms: int | None = None,
    ) -> RollBack | None:
        """A rollback when the previous model must be live again, else None.

        `evidence_ratio` is `McNemarEvidence.ratio` of live against previous, `nonfinite` the number of users with NaN
        or infinite scores since the promotion, `coverage` over how many items the live model's lists are spread, and
        `latency_alarm_since_ms` the time since which lists are late.
        """
        state, config = self._state, self._config
        if not self.can_roll_back:
            return None
        if evidence_ratio >= 1:
            return RollBack("quality", f"{state.previous} answers the same events better than {state.live}")
        if not self.on_probation(now_ms):
            return None
        if nonfinite:
            return RollBack("nonfinite", f"{nonfinite} NaN or infinite scores of {state.live}")
        if coverage is not None and coverage < config.coverage * state.coverage_before:
            before = state.coverage_before
            return RollBack(
                "coverage", f"its lists are spread over about {coverage:.0f} items, before the swap over {before:.0f}"
            )
        since = latency_alarm_since_ms
        if since is not None and 0 <= since - state.promoted_ms <= config.latency_ms:
            return RollBack("latency", f"freshness began to burn {(since - state.promoted_ms) / 1000:.0f} s after it")
        return None
