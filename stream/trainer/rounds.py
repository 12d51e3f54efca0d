"""Runs one round at a time, from its input to its outcome.

A round runs in its own thread. Its candidate is rejected by a gate, or promoted, or answers a share of the users
first as the canary. A promotion is made in this order:

    1. the artifact is written aside, synced and renamed (`RoundWorker`)
    2. the slots and the state of the closed loop move (`ModelLifecycle`, in its own order)
    3. the view removes the changes that the model has learnt
    4. old artifacts are removed

A crash before 2 leaves the old model live; a later round removes an artifact that no slot names. After a crash before
3, step 3 is done at the next start: the artifact says which records it learnt. A rejected or failed round changes only
counters: every round starts from the artifact of the live model, never from a refused candidate in memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import NamedTuple

from model.errors import ModelError
from ops.labels import Gate, RoundOutcome, Trigger
from ops.metrics import TrainerMetrics
from ops.monitor.evidence import CanaryTest
from stream.registry.artifacts import Artifacts
from stream.trainer.config import TrainerConfig
from stream.trainer.fine_tune import Stopped
from stream.trainer.history_view import HistoryView
from stream.trainer.lifecycle import ModelLifecycle
from stream.trainer.live_model import LiveModel
from stream.trainer.round import Candidate, RoundInput, RoundInputs, RoundWorker, describe, export_metrics
from stream.trainer.schedule import Schedule
from stream.trainer.skew import SkewCheck
from stream.wire.records import Announcement

__all__ = ["Rounds"]

log = logging.getLogger(__name__)

_LEAVING_SECONDS = 3.0  # how long a stopping trainer waits for its round to notice


class _Running(NamedTuple):
    given: RoundInput
    future: Future[Candidate]


class _Passed(NamedTuple):
    """A candidate that passed its exam and is stored."""

    given: RoundInput
    candidate: Candidate
    announcement: Announcement
    until: float = 0.0  # monotonic seconds: when it goes live as a canary without evidence against it


class Rounds:
    def __init__(
        self,
        config: TrainerConfig,
        lifecycle: ModelLifecycle,
        live: LiveModel,
        view: HistoryView,
        skew: SkewCheck,
        artifacts: Artifacts,
        inputs: RoundInputs,
        worker: RoundWorker,
        metrics: TrainerMetrics,
    ) -> None:
        self._config, self._lifecycle, self._live, self._view = config, lifecycle, live, view
        self._skew, self._artifacts, self._inputs, self._worker = skew, artifacts, inputs, worker
        self._metrics = metrics
        self.schedule = Schedule(config, view)
        self._running: _Running | None = None
        self._canary: _Passed | None = None

    @property
    def idle(self) -> bool:
        return self._running is None and self._canary is None

    def begin(self, trigger: Trigger, refit: bool) -> None:
        self.schedule.began()
        given = self._inputs.take(trigger, refit, self._lifecycle.slots.current, self._live.recommender)
        if given is None:
            log.info("round (%s): nobody to learn from yet", trigger)
            self._metrics.training_rounds[trigger, "skipped"].inc()
            self._lifecycle.loop.round_ended(0.0)
            return
        self._running = _Running(given, self._worker.start(given))

    def cancel(self) -> None:
        """Another model became live: stop the round, because its parent is not the live model any more."""
        if self._running is not None:
            self._running.given.cancel.set()

    def turn(self) -> None:
        """Handle a round that has finished, or judge the canary."""
        self._inputs.follow()
        running, canary = self._running, self._canary
        if running is not None and running.future.done():
            self._running = None
            self._finish(running.given, running.future)
        elif running is None and canary is not None:
            self._judge_canary(canary)

    def close(self) -> None:
        """Leave within a few seconds, whatever the round does."""
        if self._running is not None:
            self._running.given.cancel.set()
            if not wait([self._running.future], _LEAVING_SECONDS).done:
                log.warning("leaving while a round is still at work; nothing of it is kept")

    # -- what becomes of a round ---------------------------------------------------------------------------------------

    def _finish(self, given: RoundInput, future: Future[Candidate]) -> None:
        try:
            candidate = future.result()
        except Stopped:
            log.info("round %d (%s): dropped, the live model moved meanwhile", given.number, given.trigger)
            self._end(given, "skipped")
            return
        except Exception as error:
            expected = isinstance(error, ModelError)
            log.error("round %d (%s) failed: %s", given.number, given.trigger, error, exc_info=not expected)
            self._end(given, "failed")
            return
        export_metrics(given, candidate, self._metrics, self._worker.device)
        failed = dict(candidate.round.failed)
        if candidate.announcement is not None:
            failed |= self._shut_gates(given, candidate.announcement)
        if failed or candidate.announcement is None:
            self._reject(given, candidate, failed)
            return
        passed = _Passed(given, candidate, candidate.announcement, time.monotonic() + self._config.canary_seconds)
        if self._config.canary_share and self._live.recommender is not None and given.slot is not None:
            self._lifecycle.begin_canary(passed.announcement, self._config.canary_share)
            self._canary = passed
            log.info("%s answers %.0f %% of the users", given.version, 100 * self._config.canary_share)
        else:
            self._promote(passed)

    def _judge_canary(self, canary: _Passed) -> None:
        loop = self._lifecycle.loop
        counts = loop.canary.counts(loop.merge.open())
        verdict = CanaryTest(self._config.canary_events).add(counts.second, counts.first, counts.events)
        moved = self._lifecycle.slots.live != canary.given.slot
        if verdict is None and time.monotonic() < canary.until and not moved:
            return
        self._canary = None
        found = f"canary: {counts.first} events that only it hit, {counts.second} that only live did"
        failed: dict[Gate, str] = {"canary": found}
        if verdict != "reject":
            failed = self._shut_gates(canary.given, canary.announcement)
        if failed:
            if self._lifecycle.phase == "canary":  # else a rollback has ended it
                self._lifecycle.end_canary()
            self._reject(canary.given, canary.candidate, failed)
        else:
            self._promote(canary, found)

    def _shut_gates(self, given: RoundInput, announcement: Announcement) -> dict[Gate, str]:
        """Gates that a candidate fails after it passed its exam or its time as canary, with reasons."""
        loop = self._lifecycle.loop
        shut: dict[Gate, str] = {}
        # A fault is found when its window closes: a round may have begun on such events by then.
        if given.trigger != "manual" and (broken := loop.decisions.faults.broken_feed):
            shut["data_quality"] = broken
        if why := loop.decisions.probation.may_promote(announcement.parent, loop.now_ms):
            shut["cooldown"] = why
        if self._skew.shut:
            shut["skew"] = f"{self._skew.share:.1%} of the scorers' lists are not what the trainer would recommend"
        return shut

    def _reject(self, given: RoundInput, candidate: Candidate, failed: Mapping[Gate, str]) -> None:
        for gate in failed:
            self._metrics.training_gate_failures[gate].inc()
        self._end(given, "rejected", candidate, "; ".join(f"{gate}: {why}" for gate, why in failed.items()))

    def _promote(self, passed: _Passed, why: str = "") -> None:
        given, announcement = passed.given, passed.announcement
        slots = self._lifecycle.slots
        slots.catch_up()
        if slots.live != given.slot:
            if self._lifecycle.phase == "canary":
                self._lifecycle.end_canary()
            now_live = slots.live.version if slots.live else "no model"
            self._end(given, "skipped", passed.candidate, f"meanwhile {now_live} became live")
            return
        # Before the promotion, because its probation counts the rounds after it.
        self._lifecycle.loop.round_ended(time.monotonic() - given.began)
        self._lifecycle.promote(announcement, given.trigger)
        self._live.take(slots.current["live"], passed.candidate.recommender)
        self._view.mark_learnt(given.provenance.next_offsets, announcement.data_until, given.provenance.left)
        self._lifecycle.crash("learnt")
        self._metrics.model_promotions.inc()
        self._metrics.training_last_success_timestamp.set_to_current_time()
        self._artifacts.retain(self._config.keep_versions, [slot.address for slot in slots.current.values()])
        self._end(given, "promoted", passed.candidate, why or ("" if announcement.parent else "the first model"))

    def _end(self, given: RoundInput, outcome: RoundOutcome, candidate: Candidate | None = None, why: str = "") -> None:
        """The round is over, whatever became of it."""
        self.schedule.ended(outcome, given.new_interactions)
        self._metrics.training_rounds[given.trigger, outcome].inc()
        if outcome != "promoted":
            self._lifecycle.loop.round_ended(time.monotonic() - given.began)
        if candidate is not None:
            story = describe(given, candidate, outcome, why)
            log.info("round %d (%s): %s", given.number, given.trigger, story)
