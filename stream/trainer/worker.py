"""The trainer: follows `histories`, fine-tunes in rounds, and takes what passes the gate live.

One thread follows Kafka and decides; a round fits in a second one, so that the view stays current meanwhile. A round
becomes real in one order:

    1. the artifact is written aside and renamed
    2. `previous` is announced, 3. `live` is announced, each acknowledged by the brokers
    4. the view forgets which users had changed

A crash before 3 leaves the old model live; an artifact nobody names is removed by a later round. What a crash between
2 and 3 leaves is told in `stream.registry.slots`. A crash before 4 is made good at the next start: the artifact carries
the offsets up to which it learnt, and the view settles them then. A rejected or failed round changes nothing but
counters: every round starts from the artifact of the live model, never from what a refused candidate left in memory.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from kafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from model.device import pick_device
from model.errors import ModelError
from model.recommend import Recommender
from ops.labels import Gate, RollbackReason, RoundOutcome, Trigger, values
from ops.metrics import TrainerMetrics
from ops.monitor.decisions import SkipRound, StartRound
from ops.monitor.evidence import CanaryTest
from ops.monitor.probation import RollBack
from state.store import StoreMemory
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.process import run_at_idle_priority
from stream.registry.artifacts import Artifacts, Provenance, next_version
from stream.registry.slots import NoWayBack, Slots
from stream.trainer.config import TrainerConfig
from stream.trainer.fine_tune import Fit, Stopped, fit
from stream.trainer.history_view import HistoryView
from stream.trainer.round import Candidate, RoundInput, RoundWorker, describe, export_metrics
from stream.trainer.skew import PublishedLists
from stream.trainer.window_feed import WindowFeed, poll_lag
from stream.wire.layout import ready_topics
from stream.wire.records import CANARY_SLOT, Announcement
from stream.wire.topics import TopicPlan

__all__ = ["CRASH_POINTS", "Trainer", "run_trainer"]

log = logging.getLogger(__name__)

# The moments between which a killed trainer must leave everything usable; tests kill it at each.
CRASH_POINTS = ("fitted", "stored", "previous", "announced", "settled")

_LEAVING_SECONDS = 3.0  # how long a stopping trainer waits for its round to notice
_LOOK_SECONDS = 0.5  # how often `models` is looked at
_GAUGES_SECONDS = 5.0
_SKEW_SECONDS = 60.0
_SKEW = 0.01  # share of differing lists that shuts the gate


class _Trial(NamedTuple):
    """A candidate that serves some users."""

    given: RoundInput
    candidate: Candidate
    announcement: Announcement
    until: float  # monotonic seconds


class Trainer:
    """One trainer. `crash` is called with each of `CRASH_POINTS` as it is passed; `fit` teaches a learner."""

    def __init__(
        self,
        config: TrainerConfig,
        connection: KafkaConnection,
        plan: TopicPlan,
        metrics: TrainerMetrics,
        *,
        clock: Callable[[], float] = time.time,
        crash: Callable[[str], None] = lambda point: None,
        fit: Fit = fit,
    ) -> None:
        self._config, self._plan, self.metrics = config, plan, metrics
        self._clock, self._crash = clock, crash
        self._rng = np.random.default_rng(config.seed)
        self._device = pick_device(config.device, os.environ)
        self._artifacts = Artifacts(config.artifacts_url, plan.prefix)
        self._worker = RoundWorker(
            config.fine_tune, self._artifacts, self._device, config.threads, clock=clock, crash=crash, fit=fit
        )
        self._live: Recommender | None = None
        self._followed: Announcement | None = None  # what `_live` was loaded from, usable or not
        self._shown: list[tuple[str, str, str]] = []
        self._requests: deque[tuple[Trigger, bool]] = deque()
        self._running: tuple[RoundInput, Future[Candidate]] | None = None
        self._trial: _Trial | None = None
        self._left_unlearnt = 0  # new interactions that the last round saw and did not get published
        self._tried = False
        self._rounds = 0
        self._round_due = self._look_due = self._gauges_due = time.monotonic()
        self._skew_due = time.monotonic() + _SKEW_SECONDS
        self._skew = 0.0
        ready_topics(connection, plan)
        self._admin = admin_client(connection)
        self._slots = Slots(connection, plan.models)
        if CANARY_SLOT in self._slots.current:  # of a predecessor that did not live to judge it
            self._slots.clear(CANARY_SLOT)
        self._published = PublishedLists(connection, plan.recommendations, plan.partitions)
        self._feed = WindowFeed(config.closed_loop, connection, plan.monitor_windows, metrics, config.state_dir, clock)
        provenance = self._follow_live()
        live = self._slots.live
        self.view = HistoryView(
            connection,
            self._admin,
            plan.histories,
            config.state_dir / "view",
            StoreMemory(config.store),
            tombstone_ms=plan.tombstone_ms,
            fitted_until_ms=live.data_until if live is not None and self._live is not None else 0,
            clock_ms=lambda: int(clock() * 1000),
        )
        if live is not None and provenance is not None and provenance.topic_id == self.view.identity:
            self.view.mark_learnt(provenance.next_offsets, live.data_until)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`. Any unexpected error outside a round propagates: start again, nothing is lost."""
        on_gpu = self._device.type == "cuda"
        log.info(
            "trainer follows %s, fits on %s (%s), keeps models in %s, live is %s",
            self._plan.histories,
            self._device,
            torch.cuda.get_device_name(self._device) if on_gpu else f"{torch.get_num_threads()} threads",
            self._artifacts.url,
            self._slots.live.version if self._slots.live else "no model yet",
        )
        try:
            while not stop.is_set():
                self.turn()
        finally:
            self.close()

    def request(self, trigger: Trigger, refit: bool = False) -> None:
        """Have a round now, whatever the loop thinks of it; a `refit` from nothing if fine-tuning is exhausted.

        Safe from any thread and from a signal handler. One trigger waits once.
        """
        if trigger not in values(Trigger):
            raise ValueError(f"trigger {trigger!r} is none of {', '.join(values(Trigger))}")
        if trigger not in [waiting for waiting, _ in self._requests]:
            self._requests.append((trigger, refit))

    def roll_back(self, reason: RollbackReason) -> bool:
        """Take the previous model live; False when there is none. `reason` is one of the metric's."""
        try:
            good, bad = self._slots.roll_back()
        except NoWayBack as error:
            log.error("no rollback (%s): %s", reason, error)
            return False
        self._feed.loop.rolled_back()
        self.metrics.model_rollbacks[reason].inc()
        log.warning("rolled back from %s to %s: %s", bad.version, good.version, reason)
        self._followed = None
        self._follow_live()
        return True

    def acknowledge(self) -> None:
        """An operator has looked at the rollbacks: promotions may go on."""
        self._feed.loop.decisions.probation.acknowledge()

    def turn(self, timeout_ms: int = 200) -> None:
        """Take in what came, follow the live slot, finish or begin a round."""
        self.view.poll(timeout_ms)
        now = time.monotonic()
        if now >= self._look_due:
            self._look_due = now + _LOOK_SECONDS
            self._slots.poll()
            self._follow_live()
        if self._running is not None:
            if self._running[1].done():
                given, future = self._running
                self._running = None
                self._finish(given, future)
        elif self._trial is not None:
            self._judge_trial(self._trial, now)
        self._decide(now)
        self._feed.save()
        if now >= self._skew_due:
            self._skew_due = now + _SKEW_SECONDS
            if self._live is not None and self.view.caught_up:
                self._look_for_skew(self._live)
        if now >= self._gauges_due:
            self._gauges_due = now + _GAUGES_SECONDS
            self.metrics.progress_timestamp.set(self._clock())
            self.metrics.state_bytes["view"].set(self.view.bytes_on_disk())
            self.metrics.state_pending_compaction_bytes["view"].set(self.view.pending_compaction_bytes())

    def close(self) -> None:
        """Leave within a few seconds, whatever the round and the broker do."""
        if self._running is not None:
            given, future = self._running
            given.cancel.set()
            if not wait([future], _LEAVING_SECONDS).done:
                log.warning("leaving while a round is still at work; nothing of it is kept")
        for close in (
            self.view.close,
            self._slots.close,
            self._feed.close,
            self._published.close,
            self._admin.close,
        ):
            try:
                close()
            except Exception as error:  # a broker that is gone must not keep the stores open
                log.warning("while closing: %s", error)

    # -- when ----------------------------------------------------------------------------------------------------------

    def _decide(self, now: float) -> None:
        """Do what the closed loop says of the windows that came, the schedule and the requests."""
        loop = self._feed.loop
        self._feed.poll()
        if not self.view.caught_up:
            return
        idle = self._running is None and self._trial is None
        if idle and self._requests:
            loop.decisions.began()
            self._begin(*self._requests.popleft())
            return
        if idle and now >= self._round_due and self._enough():
            loop.decisions.request("schedule")
        for action in loop.turn(self.view.new_interactions):
            match action:
                case StartRound(trigger, refit, why):
                    if why:
                        log.info("a round is due (%s): %s", trigger, why)
                    self._begin(trigger, refit)
                case SkipRound(trigger, gate, why):
                    log.warning("no round (%s): %s", trigger, why)
                    self.metrics.training_rounds[trigger, "skipped"].inc()
                    self.metrics.training_gate_failures[gate].inc()
                case RollBack(reason, why):
                    log.error("the live model must go: %s", why)
                    if not self.roll_back(reason):
                        loop.adopt(loop.decisions.state.live, "")

    def _enough(self) -> bool:
        """Is there enough to learn for a round on schedule?"""
        new = self.view.new_interactions
        if self._slots.live is None and not self._tried:
            return self.view.changed_users >= self._config.first_users and new >= self._config.first_interactions
        return new - self._left_unlearnt >= max(self._config.least_interactions, 1)

    # -- the live model ------------------------------------------------------------------------------------------------

    def _follow_live(self) -> Provenance | None:
        """Load the live model when somebody else moved the slot (a rollback), and say which records it learnt."""
        live = self._slots.live
        self._show_slots()
        if live == self._followed:
            return None
        before, self._followed, self._live = self._followed, live, None
        if self._running is not None:
            self._running[0].cancel.set()  # its parent is not live any more
        if live is None:
            return None
        loop = self._feed.loop
        if before is not None:
            log.warning("the live model moved from %s to %s, not by this trainer", before.version, live.version)
            if self._slots.previous is not None and self._slots.previous.version == live.version:
                self.metrics.model_rollbacks["manual"].inc()
                loop.rolled_back(by_hand=True)
        if loop.decisions.state.live != live.version:
            previous = self._slots.previous
            loop.adopt(live.version, "" if previous is None or previous == live else previous.version)
        try:
            learner, provenance = self._artifacts.load(live, self._device)
            self._live = learner.recommender(live.version)
        except ModelError as error:
            log.error("the live model %s cannot be used; the next round starts from nothing: %s", live.version, error)
            return None
        return provenance

    def _show_slots(self) -> None:
        shown = [
            (slot, announcement.version, announcement.parent)
            for slot in ("live", CANARY_SLOT, "previous")
            if (announcement := self._slots.current.get(slot)) is not None
        ]
        if shown != self._shown:
            for labels in self._shown:
                self.metrics.model_info.remove(*labels)
            for labels in shown:
                self.metrics.model_info.labels(*labels).set(1)
            self._shown = shown

    # -- a round -------------------------------------------------------------------------------------------------------

    def _begin(self, trigger: Trigger, refit: bool) -> None:
        config = self._config
        start = time.perf_counter()
        self._round_due = time.monotonic() + config.round_seconds
        next_offsets = self.view.next_offsets()
        new = self.view.new_interactions
        changed = self.view.take_changed(config.changed_users)
        replay = self.view.sample(config.replay_users, self._rng.bytes(8), changed) if config.replay_users else {}
        self._tried = True
        if not changed and not replay:
            log.info("round (%s): nobody to learn from yet", trigger)
            self.metrics.training_rounds[trigger, "skipped"].inc()
            self._feed.loop.round_ended(0.0)
            return
        self._rounds += 1
        slots = self._slots.current.values()
        given = RoundInput(
            trigger,
            next_version([announcement.version for announcement in slots], int(self._clock() * 1000)),
            self._slots.live,
            self._live,
            changed,
            replay,
            Provenance(self.view.identity, next_offsets),
            int(self._rng.integers(2**31)),
            time.perf_counter() - start,
            new,
            refit,
            threading.Event(),
            time.monotonic(),
        )
        self._running = given, self._worker.start(given)

    def _finish(self, given: RoundInput, future: Future[Candidate]) -> None:
        trigger = given.trigger
        try:
            candidate = future.result()
        except Stopped:
            self._end(given, "skipped")
            log.info("round %d (%s): dropped, the live model moved meanwhile", self._rounds, trigger)
            return
        except Exception as error:
            self._end(given, "failed")
            expected = isinstance(error, ModelError)
            log.error("round %d (%s) failed: %s", self._rounds, trigger, error, exc_info=not expected)
            return
        export_metrics(given, candidate, self.metrics, self._device)
        failed: dict[Gate, str] = dict(candidate.round.failed)
        if candidate.announcement is not None:
            failed |= self._shut(given, candidate.announcement)
        if failed or candidate.announcement is None:
            self._reject(given, candidate, failed)
        elif self._config.canary_share and self._live is not None and given.slot is not None:
            self._try_out(given, candidate, candidate.announcement)
        else:
            self._conclude(given, candidate, *self._publish(given, candidate.announcement, candidate.recommender))

    def _shut(self, given: RoundInput, announcement: Announcement) -> dict[Gate, str]:
        """Gates that a candidate which passed its exam, or its canary, still meets."""
        loop = self._feed.loop
        shut: dict[Gate, str] = {}
        # A window tells of a fault when it closes: a round may have begun on such events by then.
        if given.trigger != "manual" and loop.decisions.faults.broken_feed:
            shut["data_quality"] = loop.decisions.faults.broken_feed
        if why := loop.decisions.probation.may_promote(announcement.parent, loop.now_ms):
            shut["cooldown"] = why
        if self._skew > _SKEW:
            shut["skew"] = f"{self._skew:.1%} of the scorers' lists are not what the trainer would recommend"
        return shut

    def _reject(self, given: RoundInput, candidate: Candidate, failed: Mapping[Gate, str]) -> None:
        for gate in failed:
            self.metrics.training_gate_failures[gate].inc()
        self._conclude(given, candidate, "rejected", "; ".join(f"{gate}: {why}" for gate, why in failed.items()))

    def _conclude(self, given: RoundInput, candidate: Candidate, outcome: RoundOutcome, why: str) -> None:
        self._end(given, outcome)
        log.info("round %d (%s): %s", self._rounds, given.trigger, describe(given, candidate, outcome, why))

    def _end(self, given: RoundInput, outcome: RoundOutcome) -> None:
        """The round is over; whatever became of it is counted here."""
        loop = self._feed.loop
        if outcome in ("rejected", "failed"):
            self._left_unlearnt = given.new_interactions
        self.metrics.training_rounds[given.trigger, outcome].inc()
        loop.round_ended(time.monotonic() - given.began)
        if outcome == "promoted":
            loop.promoted(given.version, given.trigger)

    # -- a canary ------------------------------------------------------------------------------------------------------

    def _try_out(self, given: RoundInput, candidate: Candidate, announcement: Announcement) -> None:
        """Let the candidate answer some users before all."""
        config = self._config
        self._slots.put(CANARY_SLOT, msgspec.structs.replace(announcement, share=config.canary_share))
        self._show_slots()
        self._feed.loop.canary.follow(announcement.version)
        self._trial = _Trial(given, candidate, announcement, time.monotonic() + config.canary_seconds)
        log.info("%s answers %.0f %% of the users", announcement.version, 100 * config.canary_share)

    def _judge_trial(self, trial: _Trial, now: float) -> None:
        counts = self._feed.loop.canary_counts()
        verdict = CanaryTest(self._config.canary_events).add(counts.second, counts.first, counts.events)
        moved = self._slots.live != trial.given.slot
        if verdict is None and now < trial.until and not moved:
            return
        self._trial = None
        self._feed.loop.canary.follow("")
        told = f"canary: {counts.first} events that only the candidate hit, {counts.second} that only live did"
        failed: dict[Gate, str] = (
            {"canary": told} if verdict == "reject" else self._shut(trial.given, trial.announcement)
        )
        if failed:
            self._reject(trial.given, trial.candidate, failed)
        else:
            outcome, why = self._publish(trial.given, trial.announcement, trial.candidate.recommender)
            self._conclude(trial.given, trial.candidate, outcome, why or told)
        self._slots.clear(CANARY_SLOT)
        self._show_slots()

    # -- do the scorers do the same? -----------------------------------------------------------------------------------

    def _look_for_skew(self, live: Recommender) -> None:
        try:
            found = self._published.differing(live, lambda number, users: self.view.partitions[number].histories(users))
        except (KafkaError, ModelError) as error:
            log.warning("the scorers' lists could not be compared: %s", error)
            return
        self._skew = found or 0.0  # nothing is known against the scorers while too few lists were compared
        self.metrics.train_serve_mismatch_ratio.set(self._skew)

    # -- going live ----------------------------------------------------------------------------------------------------

    def _publish(
        self, given: RoundInput, announcement: Announcement, recommender: Recommender | None
    ) -> tuple[RoundOutcome, str]:
        """Announce a stored candidate; returns (outcome, why)."""
        self._slots.catch_up()
        live = self._slots.live
        if live != given.slot:
            self._follow_live()
            return "skipped", f"meanwhile {live.version if live else 'no model'} became live"
        self._slots.promote(announcement, self._crash)
        self._followed, self._live = self._slots.live, recommender
        self._crash("announced")
        self.view.mark_learnt(given.provenance.next_offsets, announcement.data_until)
        self._crash("settled")
        self._left_unlearnt = 0
        self.metrics.model_promotions.inc()
        self.metrics.training_last_success_timestamp.set(self._clock())
        self._artifacts.retain(self._config.keep_versions, [slot.address for slot in self._slots.current.values()])
        return "promoted", "" if announcement.parent else "the first model"


def run_trainer(
    config: TrainerConfig,
    connection: KafkaConnection,
    plan: TopicPlan,
    registry: CollectorRegistry,
    stop: threading.Event,
) -> int:
    """Run the trainer until `stop`; returns 0. Raises what made it give up: start it again, it continues.

    SIGUSR1 asks for a round now, SIGUSR2 reopens promotions that rollbacks closed.
    With `config.spare_time_only` the calling thread and those it starts give way to everything else.
    """
    if config.spare_time_only:
        run_at_idle_priority()
    if config.threads:
        torch.set_num_threads(config.threads)
    trainer = Trainer(config, connection, plan, TrainerMetrics(registry))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, lambda signum, frame: trainer.request("manual"))
        signal.signal(signal.SIGUSR2, lambda signum, frame: trainer.acknowledge())
    groups = {
        plan.prefix + config.updater_group: {plan.interactions: plan.partitions},
        plan.prefix + config.scorer_group: {plan.refreshes: plan.partitions},
    }
    left = threading.Event()
    lag = poll_lag(connection, groups, trainer.metrics, left)
    try:
        trainer.run(stop)
    finally:
        left.set()
        lag.join(2)
    return 0
