"""When to train, and when to roll a model back: the closed loop as a state machine in event time.

Triggers ask for rounds; the admission lets a round start, or names the gate that is shut. Two parts with the same state
decide about faults of the feed (`ops.monitor.feed_faults`) and about the probation of models
(`ops.monitor.probation`). The loop only decides: its owner acts, logs, and reports what happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ops.labels import Check, Trigger, Verdict
from ops.monitor.feed_faults import FeedFaults
from ops.monitor.loop_state import HOUR_MS, LoopConfig, LoopState, ShutGate
from ops.monitor.probation import Probation, RollBack

__all__ = ["Action", "DecisionLoop", "SkipRound", "StartRound"]

# The order in which waiting triggers are served; a vocabulary round also learns what a drift round would.
_ORDER: tuple[Trigger, ...] = ("manual", "vocabulary", "drift", "quality", "schedule")


@dataclass(frozen=True)
class StartRound:
    trigger: Trigger
    refit: bool  # train a new model, because fine-tuning did not absorb the drift
    why: str


@dataclass(frozen=True)
class SkipRound:
    """The round does not start. When the gate is `data_quality`, the trigger is dropped; for `cooldown` it waits."""

    trigger: Trigger
    gate: ShutGate
    why: str


Action = StartRound | SkipRound | RollBack


class DecisionLoop:
    """One loop per trainer. All methods take event time; none reads a clock.

    >>> loop = DecisionLoop(LoopConfig())
    >>> loop.probation.promoted("m1", now_ms=0)
    >>> loop.window(drift={"item_popularity": 2}, failed_checks={})
    >>> loop.next_round(now_ms=8 * 3_600_000, new_events=9_000)
    StartRound(trigger='drift', refit=False, why='item_popularity')
    """

    def __init__(self, config: LoopConfig, state: LoopState | None = None) -> None:
        self.config = config
        self.state = state if state is not None else LoopState()
        self.faults = FeedFaults(config, self.state)
        self.probation = Probation(config, self.state)

    # -- what asks for a round -----------------------------------------------------------------------------------------

    def request(self, trigger: Trigger, why: str = "") -> None:
        self.state.waiting.setdefault(trigger, why)

    def window(self, drift: Mapping[str, int], failed_checks: Mapping[Check, str]) -> None:
        """A window was judged: the drift state of each signal against the training reference, and the feed's faults."""
        drifting = self.faults.window(drift, failed_checks)
        if "unknown_item_rate" in drifting:
            self.request("vocabulary", "unknown_item_rate")
        elif drifting:
            self.request("drift", ", ".join(drifting))
        else:
            self.state.waiting.pop("drift", None)
            self.state.waiting.pop("vocabulary", None)

    def quality(self, verdict: Verdict) -> RollBack | None:
        """Act on the verdict from paired outcomes: changed demand asks for a round, a model that became worse for a
        rollback."""
        if verdict == "demand":
            self.request("quality", "hits fell, for popularity too")
        elif verdict == "model":
            if self.probation.can_roll_back:
                return RollBack("quality", "hits fell, popularity's did not")
            self.state.refit = True
            self.request("quality", "hits fell, popularity's did not, and there is no previous model")
        return None

    # -- admission -----------------------------------------------------------------------------------------------------

    def next_round(self, now_ms: int, new_events: int) -> StartRound | SkipRound | None:
        """Start the most urgent round that may start. If none may, report each reason once."""
        state = self.state
        if state.running:
            return None
        state.early_ms = [begun for begun in state.early_ms if now_ms - begun < HOUR_MS]
        for trigger in _ORDER:
            if trigger not in state.waiting:
                continue
            shut = self._shut(trigger, now_ms, new_events)
            if shut is None:
                return self._start(trigger, now_ms)
            gate, why = shut
            known = state.skipped.get(trigger)
            state.skipped[trigger] = gate
            if gate == "data_quality":
                del state.waiting[trigger]
            if known != gate:
                return SkipRound(trigger, gate, why)
        return None

    def began(self) -> None:
        """A round was started, by this loop or by hand; it answers all waiting triggers."""
        self.state.waiting, self.state.skipped, self.state.running = {}, {}, True

    def round_ended(self, now_ms: int, took_ms: int) -> None:
        """A round is over, whatever its outcome."""
        state = self.state
        state.running = False
        state.round_ended_ms, state.round_took_ms = now_ms, took_ms
        state.probation_left = max(state.probation_left - 1, 0)

    def _start(self, trigger: Trigger, now_ms: int) -> StartRound:
        state = self.state
        why, refit = state.waiting[trigger], state.refit
        self.began()
        state.refit = False
        if trigger in ("drift", "quality", "vocabulary"):
            state.early_ms.append(now_ms)
        return StartRound(trigger, refit, why)

    def _shut(self, trigger: Trigger, now_ms: int, new_events: int) -> tuple[ShutGate, str] | None:
        state, config = self.state, self.config
        if trigger == "manual":
            return None
        if self.faults.broken_feed:
            return "data_quality", self.faults.broken_feed
        if closed := self.probation.promotions_closed(now_ms):
            return "cooldown", closed
        if trigger == "schedule":
            return None
        cooldown_ms = max(config.cooldown_ms, config.cooldown_rounds * state.round_took_ms)
        if state.round_ended_ms and now_ms - state.round_ended_ms < cooldown_ms:
            return "cooldown", f"the last round ended {(now_ms - state.round_ended_ms) / 60_000:.0f} minutes ago"
        if new_events < config.new_events:
            return "cooldown", f"{new_events} events since the last round, {config.new_events} are needed"
        if len(state.early_ms) >= config.early_rounds:
            return "cooldown", f"{len(state.early_ms)} rounds before their time within the hour"
        if self.probation.on_probation(now_ms):
            return "cooldown", f"{state.live} is on probation"
        return None
