"""The system as an arm: lists by the scorer's list maker, rounds, gate and triggers by the trainer's own code.

Two things differ from production. A round takes no event time: the next event is already answered with its result. And
a model that passes the gate goes live for all users, because a log has no users who could try a canary; a worse model
is found and rolled back by the same evidence as in production.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import msgspec
import numpy as np
import torch
from prometheus_client import CollectorRegistry

from model.artifact import load_recommender
from model.errors import ModelError
from model.recommend import Recommender
from ops.labels import RoundOutcome, Trigger
from ops.metrics import TrainerMetrics
from ops.monitor.closed_loop import ClosedLoop
from ops.monitor.decisions import SkipRound, StartRound
from ops.monitor.loop_state import LoopState
from ops.monitor.probation import RollBack
from state.store import Store
from stream.backtest.arms import Service
from stream.backtest.serving import Serving
from stream.backtest.timeline import Batch, HistoryTimeline
from stream.registry.artifacts import Artifacts, Provenance, load_reference, next_version
from stream.scorer.config import ListConfig
from stream.scorer.models import Models
from stream.trainer.config import TrainerConfig
from stream.trainer.fine_tune import fit
from stream.trainer.history_view import PartitionView
from stream.trainer.round import RoundInput, RoundWorker, describe
from stream.wire.examples_topic import decode_examples, encode_examples
from stream.wire.records import Announcement

__all__ = ["RoundReport", "System", "SystemState"]

log = logging.getLogger(__name__)

_WINDOWS = 4_000  # records kept to restore the closed loop: some weeks of the windows of two workers


class RoundReport(msgspec.Struct, frozen=True):
    """One round of the system."""

    event: int  # the first event that is answered with its result
    time_ms: int
    trigger: str
    outcome: str  # promoted, rejected, failed
    version: str
    why: str
    users: int
    train_seconds: float
    next_offset: int = 0  # events before this place were learnt
    data_until_ms: int = 0
    left: tuple[int, int] | None = None  # places in the log whose users the round had no room for


class SystemState(msgspec.Struct):
    """The state that a system needs to continue where it stopped; histories and popularity are computed again from the
    log."""

    rounds: list[RoundReport] = []
    live: Announcement | None = None
    previous: Announcement | None = None
    first: Announcement | None = None
    loop: LoopState = msgspec.field(default_factory=LoopState)
    windows: dict[bytes, bytes] = {}  # newest records of `monitor-windows` by key, oldest first
    round_due_ms: int = 0
    left_unlearnt: int = 0
    train_seconds: float = 0.0
    examples: list[bytes] = []  # what the reranker learns from, as on the topic `examples`; written by `keep`


class System:
    """An arm that holds rounds. `stop` is checked during a round's training, and `doing` is called when one begins."""

    def __init__(
        self,
        name: str,
        service: Service,
        config: TrainerConfig,
        lists: ListConfig,
        device: torch.device,
        view: Store,
        *,
        stop: threading.Event,
        state: SystemState | None = None,
        doing: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.name, self.state, self._config = name, state or SystemState(), config
        self._stop, self._doing = stop, doing
        self._view, self._now_ms = PartitionView(view), 0

        def clock() -> float:
            return self._now_ms / 1000  # event time instead of the clock of the machine

        windows = config.closed_loop.windows
        most = config.reranker.most_examples
        self._serving = Serving(service, lists, windows, _in_service(self.state, device), clock, most)
        self._serving.restore(decode_examples(self.state.examples))
        self._artifacts = Artifacts(config.artifacts_url)
        self._worker = RoundWorker(config, self._artifacts, device, clock=clock, crash=lambda point: None, fit=fit)
        self._loop = ClosedLoop(config.closed_loop, TrainerMetrics(CollectorRegistry()), clock, self.state.loop)
        self._loop.restore(self.state.windows.values())

    @property
    def train_seconds(self) -> float:
        return self.state.train_seconds

    def ranks(self, batch: Batch) -> np.ndarray:
        return self._serving.ranks(batch, on_probation=bool(self._loop.decisions.state.probation_left))

    # -- learning ------------------------------------------------------------------------------------------------------

    def learn(self, batch: Batch) -> None:
        """Count the events, and hold a round if one is due."""
        self._now_ms = batch.newest_ms
        self._view.apply(batch.records(), batch.end, batch.newest_ms)
        self._serving.learn(batch)

    def relearn(self, batch: Batch) -> None:
        """As `learn`, for events that were answered before the backtest was interrupted; holds no round."""
        self._now_ms = batch.newest_ms
        self._view.apply(batch.records(), batch.end, batch.newest_ms)
        self._serving.note_met(batch)
        for report in self.state.rounds:
            if report.event == batch.end and report.outcome == "promoted":
                self._view.mark_learnt(report.next_offset, report.data_until_ms, report.left)

    def turn(self, batch: Batch) -> RoundReport | None:
        """Let the closed loop decide; returns the round that was held, if any. Raises `Stopped`."""
        loop, state = self._loop, self.state
        for record in self._serving.take():
            value = record.encode()
            state.windows.pop(record.key, None)
            state.windows[record.key] = value
            loop.add(value)
        while len(state.windows) > _WINDOWS:
            del state.windows[next(iter(state.windows))]
        first = state.live is None and not state.rounds
        if batch.newest_ms >= state.round_due_ms and self._config.enough(
            first=first,
            changed_users=len(self._view.changed),
            new_interactions=self._view.new_interactions,
            left_unlearnt=state.left_unlearnt,
        ):
            loop.decisions.request("schedule")
        held = None
        for action in loop.turn(self._view.new_interactions):
            match action:
                case StartRound(trigger, refit, _):
                    held = self._round(batch, trigger, refit)
                case SkipRound(trigger, _, why):
                    log.info("%s: no round (%s): %s", self.name, trigger, why)
                case RollBack(reason, why):
                    self._roll_back(f"{reason}: {why}")
        state.loop = loop.decisions.state
        return held

    def _round(self, batch: Batch, trigger: Trigger, refit: bool) -> RoundReport:
        config, state, number = self._config, self.state, len(self.state.rounds)
        state.round_due_ms = batch.newest_ms + int(config.round_seconds * 1000)
        self._doing(f"{self.name}: round {number + 1} ({trigger})")
        rng = np.random.default_rng((config.seed, number))
        changed, left = self._view.take(config.changed_users)
        replay = self._view.sample(config.replay_users, rng.bytes(8), unchanged=True) if config.replay_users else {}
        new, start = self._view.new_interactions, time.monotonic()
        given = RoundInput(
            number + 1,
            trigger,
            next_version([announced.version for announced in (state.live, state.previous) if announced], self._now_ms),
            state.live,
            self._serving.models.live,
            changed,
            replay,
            Provenance(self.name, {0: batch.end}, {} if left is None else {0: left}),
            int(rng.integers(2**31)),
            0.0,
            new,
            refit,
            self._stop,
            start,
            self._serving.examples(),
        )
        outcome: RoundOutcome = "failed"
        why, users, spent, until_ms = "", len(changed) + len(replay), 0.0, 0
        try:
            candidate = self._worker.start(given).result()
        except ModelError as error:
            why = str(error)
        else:
            spent, until_ms = sum(candidate.round.seconds.values()), candidate.round.data_until_ms
            failed = dict(candidate.round.failed)
            parent = given.parent.version if given.parent else ""
            if shut := self._loop.decisions.probation.may_promote(parent, self._now_ms):
                failed["cooldown"] = shut
            outcome = "rejected" if failed or candidate.announcement is None else "promoted"
            why = "; ".join(f"{gate}: {text}" for gate, text in failed.items())
            log.debug("%s: %s", self.name, describe(given, candidate, outcome, why))
        self._loop.round_ended(time.monotonic() - start)  # before a promotion: its probation counts the rounds after it
        if outcome == "promoted":
            assert candidate.announcement is not None and candidate.recommender is not None
            self._promote(given, candidate.announcement, candidate.recommender, until_ms)
        else:
            state.left_unlearnt = new
        state.train_seconds += spent
        report = RoundReport(
            batch.end, self._now_ms, trigger, outcome, given.version, why, users, spent, batch.end, until_ms, left
        )
        state.rounds.append(report)
        return report

    def keep(self) -> None:
        """Bring `state` up to date, to be saved."""
        joined = self._serving.examples()
        self.state.examples = [] if joined is None else list(encode_examples(joined))

    def _promote(self, given: RoundInput, live: Announcement, recommender: Recommender, until_ms: int) -> None:
        state = self.state
        move = self._loop.intend("promote", live.version, given.trigger)
        state.previous, state.live, state.left_unlearnt = state.live, live, 0
        state.first = state.first or live
        self._loop.moved(move)
        before = self._serving.models.live
        self._serving.follow(Models(live=recommender, previous=before, reference=load_reference(live)))
        self._view.mark_learnt(given.provenance.next_offsets[0], until_ms, given.provenance.left.get(0))
        in_service = (state.live, state.previous, state.first)
        self._artifacts.retain(0, [announced.address for announced in in_service if announced is not None])

    def _roll_back(self, why: str) -> None:
        log.info("%s: rolled back: %s", self.name, why)
        state = self.state
        if state.previous is None:
            self._loop.moved_by_hand(state.live.version if state.live else "", "", rolled_back=False)
            return
        move = self._loop.intend("roll_back", state.previous.version)
        state.live, state.previous = state.previous, None
        self._loop.moved(move)
        self._serving.follow(Models(live=self._serving.models.previous, reference=load_reference(state.live)))

    def round_held(self, timeline: HistoryTimeline) -> None:
        """The rounds of another system change nothing here."""

    def close(self) -> None:
        self._view.store.close()


def _in_service(state: SystemState, device: torch.device) -> Models:
    """The models of a state, loaded."""
    live, previous = state.live, state.previous
    return Models(
        live=None if live is None else load_recommender(live.address, live.sha256, device),
        previous=None if previous is None else load_recommender(previous.address, previous.sha256, device),
        reference=None if live is None else load_reference(live),
    )
