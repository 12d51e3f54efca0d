"""When to train, and when to take a model back: the closed loop as a state machine in event time.

Triggers ask for rounds; admission lets one start or says which gate is shut. After a promotion the new model is on
probation: evidence against it brings the previous one back, quarantines it, and closes promotions for a while; a second
rollback within a day freezes them until an operator acknowledges. The loop decides; somebody else acts and logs, and
tells it what happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from ops.monitor.detectors import McNemarEvidence

__all__ = ["CanaryTest", "DecisionLoop", "LoopConfig", "LoopState", "RollBack", "SkipRound", "StartRound", "Trigger"]

Trigger = Literal["schedule", "drift", "quality", "vocabulary", "manual"]
Gate = Literal["data_quality", "cooldown"]
RollbackReason = Literal["quality", "nonfinite", "latency", "coverage", "manual"]

# Who goes first when several wait; a vocabulary round also learns what a drift round would.
_ORDER: tuple[Trigger, ...] = ("manual", "vocabulary", "drift", "quality", "schedule")
_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class LoopConfig:
    new_events: int = 5_000  # since the last round, for a round before its time
    cooldown_ms: int = 10 * 60 * 1000
    cooldown_rounds: float = 3.0  # and so many times as long as the last round took
    early_rounds: int = 4  # per hour
    many_signals: int = 4  # drifting at once: the feed is broken, not the world
    many_windows: int = 16  # for so many windows; nobody leaves a broken feed for longer, so then it is the world
    probation_rounds: int = 2
    probation_ms: int = 6 * _HOUR_MS
    coverage: float = 0.5  # of the items that the lists before the swap were spread over
    latency_ms: int = 10 * 60 * 1000  # a latency alarm that begins so soon after a swap is the swap's
    closed_ms: int = _HOUR_MS  # promotions after a rollback
    freeze_ms: int = 24 * _HOUR_MS  # two rollbacks within it freeze promotions
    suspect_windows: int = 8  # for so long after a fault of the feed, a drift that began in it is the fault's
    absorb_windows: int = 2  # that a drift may outlive the promotion that should have absorbed it

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


@dataclass(frozen=True)
class StartRound:
    trigger: Trigger
    refit: bool  # from nothing: fine-tuning did not absorb the drift
    why: str


@dataclass(frozen=True)
class SkipRound:
    """The round is not held. The trigger is forgotten for `data_quality`, and waits for `cooldown`."""

    trigger: Trigger
    gate: Gate
    why: str


@dataclass(frozen=True)
class RollBack:
    reason: RollbackReason
    why: str


class LoopState(msgspec.Struct):
    """What must survive a restart. Times are event times in milliseconds."""

    waiting: dict[str, str] = {}  # trigger -> why
    skipped: dict[str, str] = {}  # trigger -> the gate it was last told about
    round_ended_ms: int = 0
    round_took_ms: int = 0
    running: bool = False
    early_ms: list[int] = []  # when rounds before their time began, within the last hour
    live: str = ""
    previous: str = ""
    promoted_ms: int = 0
    probation_left: int = 0  # rounds; 0 when not on probation
    coverage_before: float = 0.0
    closed_until_ms: int = 0
    rollbacks_ms: list[int] = []
    frozen: bool = False
    quarantined: list[str] = []
    refit: bool = False
    drifted_windows: int = 0  # evaluated in drift since a drift round was promoted
    many: int = 0  # windows in a row in which many signals drifted
    suspect: dict[str, int] = {}  # signals whose drift began in a fault -> sound windows since it ended
    absorbing: bool = False  # a drift round was promoted and its drift is not known to be gone

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @staticmethod
    def decode(value: bytes) -> LoopState:
        """Raises `msgspec.DecodeError` for anything `encode` did not write."""
        return msgspec.json.decode(value, type=LoopState)


class DecisionLoop:
    """One loop per trainer. All methods take event time; none looks at a clock.

    >>> loop = DecisionLoop(LoopConfig())
    >>> loop.promoted("m1", now_ms=0)
    >>> loop.window(now_ms=8 * 3_600_000, drift={"item_popularity": 2}, failed_checks={})
    >>> loop.next_round(now_ms=8 * 3_600_000, new_events=9_000)
    StartRound(trigger='drift', refit=False, why='item_popularity')
    """

    def __init__(self, config: LoopConfig, state: LoopState | None = None) -> None:
        self.config = config
        self.state = state if state is not None else LoopState()
        self.failed_checks: dict[str, str] = {}

    # -- what asks for a round -----------------------------------------------------------------------------------------

    def request(self, trigger: Trigger, why: str = "") -> None:
        self.state.waiting.setdefault(trigger, why)

    def window(self, now_ms: int, drift: Mapping[str, int], failed_checks: Mapping[str, str]) -> None:
        """A window was judged: the drift state of each signal against the training reference, and the feed's faults."""
        state, config = self.state, self.config
        self.failed_checks = dict(failed_checks)
        drifting = sorted(signal for signal, level in drift.items() if level == 2)
        state.many = state.many + 1 if len(drifting) >= config.many_signals else 0
        if 0 < state.many <= config.many_windows:
            self.failed_checks["signals"] = f"{len(drifting)} signals drift at once: {', '.join(drifting)}"
        drifting = self._without_suspects(drifting)
        self._follow_absorption(drift)
        if "unknown_item_rate" in drifting:
            self.request("vocabulary", "unknown_item_rate")
        elif drifting:
            self.request("drift", ", ".join(drifting))
        else:
            state.waiting.pop("drift", None)
            state.waiting.pop("vocabulary", None)

    def quality(self, verdict: Literal["ok", "suspected", "demand", "model"], now_ms: int) -> RollBack | None:
        """What the paired outcomes say: moved demand asks for a round, a broken model for the previous one."""
        if verdict == "demand":
            self.request("quality", "hits fell, for popularity too")
        elif verdict == "model":
            if self.can_roll_back:
                return RollBack("quality", "hits fell, popularity's did not")
            self.state.refit = True
            self.request("quality", "hits fell, popularity's did not, and there is no previous model")
        return None

    # -- admission -----------------------------------------------------------------------------------------------------

    def next_round(self, now_ms: int, new_events: int) -> StartRound | SkipRound | None:
        """Start the most urgent round that may start; else say once why one must not."""
        state = self.state
        if state.running:
            return None
        state.early_ms = [begun for begun in state.early_ms if now_ms - begun < _HOUR_MS]
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
        """A round was started, by this loop or by hand; it answers everything that waits."""
        self.state.waiting, self.state.skipped, self.state.running = {}, {}, True

    def _start(self, trigger: Trigger, now_ms: int) -> StartRound:
        state = self.state
        why, refit = state.waiting[trigger], state.refit
        self.began()
        state.refit = False
        if trigger in ("drift", "quality", "vocabulary"):
            state.early_ms.append(now_ms)
        return StartRound(trigger, refit, why)

    def _shut(self, trigger: Trigger, now_ms: int, new_events: int) -> tuple[Gate, str] | None:
        state, config = self.state, self.config
        if trigger == "manual":
            return None
        if self.broken_feed:
            return "data_quality", self.broken_feed
        if state.frozen:
            return "cooldown", "promotions are frozen after two rollbacks; acknowledge to reopen them"
        if now_ms < state.closed_until_ms:
            return "cooldown", "promotions are closed after a rollback"
        if trigger == "schedule":
            return None
        cooldown_ms = max(config.cooldown_ms, config.cooldown_rounds * state.round_took_ms)
        if state.round_ended_ms and now_ms - state.round_ended_ms < cooldown_ms:
            return "cooldown", f"the last round ended {(now_ms - state.round_ended_ms) / 60_000:.0f} minutes ago"
        if new_events < config.new_events:
            return "cooldown", f"{new_events} events since the last round, {config.new_events} are needed"
        if len(state.early_ms) >= config.early_rounds:
            return "cooldown", f"{len(state.early_ms)} rounds before their time within the hour"
        if self.on_probation(now_ms):
            return "cooldown", f"{state.live} is on probation"
        return None

    # -- what became of it ---------------------------------------------------------------------------------------------

    def round_ended(self, now_ms: int, took_ms: int) -> None:
        """A round is over, whatever its outcome; tell of a promotion by `promoted` as well."""
        state = self.state
        state.running = False
        state.round_ended_ms, state.round_took_ms = now_ms, took_ms
        state.probation_left = max(state.probation_left - 1, 0)

    def promoted(self, version: str, now_ms: int, trigger: str = "schedule", coverage: float = 0.0) -> None:
        """`version` is live; `coverage`: how many items the lists before it were spread over (0: unknown)."""
        state, config = self.state, self.config
        state.previous, state.live, state.promoted_ms = state.live, version, now_ms
        state.probation_left = config.probation_rounds if state.previous else 0
        state.coverage_before = coverage
        state.absorbing, state.drifted_windows = trigger == "drift", 0

    @property
    def broken_feed(self) -> str:
        """Why nothing may be learnt from the events that come now, "" while they are sound."""
        return "; ".join(f"{check}: {why}" for check, why in self.failed_checks.items())

    def may_promote(self, parent: str, now_ms: int) -> str | None:
        """None, or why a finished candidate must not go live."""
        state = self.state
        if state.frozen:
            return "promotions are frozen after two rollbacks; acknowledge to reopen them"
        if now_ms < state.closed_until_ms:
            return "promotions are closed after a rollback"
        return f"its parent {parent} is quarantined" if parent in state.quarantined else None

    def adopt(self, live: str, previous: str) -> None:
        """These models are in service, and not by this loop's doing: nothing is known against them."""
        self.state.live, self.state.previous, self.state.probation_left = live, previous, 0

    def rolled_back(self, now_ms: int, by_hand: bool = False) -> None:
        """The previous model is live again. Who does it by hand has looked: promotions stay open."""
        state, config = self.state, self.config
        state.quarantined = [*state.quarantined[-99:], state.live]
        state.live, state.previous = state.previous, ""
        state.probation_left = 0
        if by_hand:
            return
        state.closed_until_ms = now_ms + config.closed_ms
        state.rollbacks_ms = [at for at in state.rollbacks_ms if now_ms - at < config.freeze_ms] + [now_ms]
        state.frozen = state.frozen or len(state.rollbacks_ms) >= 2

    def acknowledge(self) -> None:
        """An operator has looked: promotions may go on."""
        self.state.frozen, self.state.closed_until_ms, self.state.rollbacks_ms = False, 0, []

    # -- probation -----------------------------------------------------------------------------------------------------

    @property
    def can_roll_back(self) -> bool:
        return bool(self.state.previous) and self.state.previous not in self.state.quarantined

    def on_probation(self, now_ms: int) -> bool:
        state = self.state
        return state.probation_left > 0 and now_ms - state.promoted_ms < self.config.probation_ms

    def judge_live(
        self,
        now_ms: int,
        *,
        evidence_ratio: float = 0.0,
        nonfinite: int = 0,
        coverage: float | None = None,
        latency_alarm_since_ms: int | None = None,
    ) -> RollBack | None:
        """Must the previous model come back? `evidence_ratio` is `McNemarEvidence.ratio` of live against previous,
        `nonfinite` the unsound scores since the promotion, `coverage` how many items its lists are spread over."""
        state, config = self.state, self.config
        if not self.can_roll_back:
            return None
        if evidence_ratio >= 1:
            return RollBack("quality", f"{state.previous} answers the same events better than {state.live}")
        if not self.on_probation(now_ms):
            return None
        if nonfinite:
            return RollBack("nonfinite", f"{nonfinite} unsound scores of {state.live}")
        if coverage is not None and coverage < config.coverage * state.coverage_before:
            before = state.coverage_before
            return RollBack(
                "coverage", f"its lists are spread over about {coverage:.0f} items, before the swap over {before:.0f}"
            )
        since = latency_alarm_since_ms
        if since is not None and 0 <= since - state.promoted_ms <= config.latency_ms:
            return RollBack("latency", f"freshness began to burn {(since - state.promoted_ms) / 1000:.0f} s after it")
        return None

    def _without_suspects(self, drifting: list[str]) -> list[str]:
        """The drift that is not a broken feed's: what drifts in a fault is not believed until well after its end."""
        state = self.state
        if self.failed_checks:
            state.suspect = dict.fromkeys({*state.suspect, *drifting}, 0)
            return []
        state.suspect = {
            signal: windows + 1
            for signal, windows in state.suspect.items()
            if signal in drifting and windows < self.config.suspect_windows
        }
        return [signal for signal in drifting if signal not in state.suspect]

    def _follow_absorption(self, drift: Mapping[str, int]) -> None:
        state = self.state
        if not state.absorbing:
            return
        if any(level == 2 for level in drift.values()):
            state.drifted_windows += 1
            if state.drifted_windows > self.config.absorb_windows:
                state.refit, state.absorbing = True, False
        elif drift and all(level == 0 for level in drift.values()):
            state.absorbing = False


class CanaryTest:
    """May the canary go live? Refused on evidence against it, promoted after enough events.

    >>> canary = CanaryTest()
    >>> canary.add(against=5, in_favour=9, events=1500), canary.add(against=3, in_favour=2, events=600)
    (None, 'promote')
    >>> CanaryTest().add(against=60, in_favour=20, events=800)
    'reject'
    """

    def __init__(self, events: int = 2_000, alpha: float = 0.05) -> None:
        self._needed, self._events = events, 0
        self.evidence = McNemarEvidence(alpha)

    def add(self, against: int, in_favour: int, events: int) -> Literal["promote", "reject"] | None:
        """Events of canary users: how many only live's list hit, only the canary's, and how many were scored."""
        self._events += events
        if self.evidence.add(against, in_favour):
            return "reject"
        return "promote" if self._events >= self._needed else None
