"""The trainer: follows `histories`, fine-tunes in rounds, and takes what passes the gate live.

One thread follows Kafka and decides; a round fits in a second one, so that the view stays current meanwhile. A round
becomes real in one order:

    1. the artifact is written aside and renamed
    2. `previous` is announced, 3. `live` is announced, each acknowledged by the brokers
    4. the view forgets which users had changed

A crash before 3 leaves the old model live; an artifact nobody names is removed by a later round. What a crash between
2 and 3 leaves is told in `stream.slots`. A crash before 4 is made good at the next start: the artifact carries the
offsets up to which it learnt, and the view settles them then. A rejected or failed round changes nothing but counters:
every round starts from the artifact of the live model, never from what a refused candidate left in memory.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from kafka.admin import KafkaAdminClient
from prometheus_client import CollectorRegistry

from model.artifact import Manifest
from model.device import pick_device
from model.errors import ModelError
from model.recommend import Recommender
from ops.connection import KafkaConnection
from ops.metrics import TRIGGERS, TrainerMetrics
from state.history import History
from state.store import StoreConfig, StoreMemory
from stream.artifacts import Artifacts, Provenance, next_version
from stream.fine_tune import FineTuneConfig, Fit, Round, Stopped, fine_tune, fit
from stream.records import Announcement
from stream.slots import NoWayBack, Slots
from stream.topics import TopicPlan, ensure_topics
from stream.view import Changed, HistoryView

__all__ = ["CRASH_POINTS", "Trainer", "TrainerConfig", "run_trainer"]

log = logging.getLogger(__name__)

# The moments between which a killed trainer must leave everything usable; tests kill it at each.
CRASH_POINTS = ("fitted", "stored", "previous", "announced", "settled")

_LEAVING_SECONDS = 3.0  # how long a stopping trainer waits for its round to notice
_LOOK_SECONDS = 0.5  # how often `models` is looked at
_GAUGES_SECONDS = 5.0


@dataclass(frozen=True)
class TrainerConfig:
    state_dir: Path
    artifacts: str = ""  # an fsspec URL; a folder in state_dir when empty
    keep_versions: int = 5  # artifacts kept besides those a slot names
    device: str | None = None  # cpu, cuda, cuda:1, ...; CUDA when there
    threads: int = 0  # of torch; 0 leaves it to torch
    nice: int = 10  # below the scorer, which answers users; 0 leaves the priority alone
    round_seconds: float = 600.0
    least_interactions: int = 200  # new since the last round, else the schedule lets it pass
    first_users: int = 100  # the first model waits for these
    first_interactions: int = 2_000
    # A round holds these in memory, about 20 kB for a history of 200 items.
    changed_users: int = 20_000  # at most, those who changed last
    replay_users: int = 20_000  # of the others, drawn anew each round, so that nothing is unlearnt
    seed: int = 0
    fine_tune: FineTuneConfig = field(default_factory=FineTuneConfig)
    store: StoreConfig = field(default_factory=StoreConfig)

    def __post_init__(self) -> None:
        for name in ("round_seconds", "first_users", "first_interactions", "changed_users", "keep_versions"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("threads", "nice", "least_interactions", "replay_users"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def artifacts_url(self) -> str:
        return self.artifacts or str(self.state_dir.absolute() / "artifacts")


class _Material(NamedTuple):
    """What a round works on, taken from the view in one go."""

    trigger: str
    version: str
    slot: Announcement | None  # what was live then
    live: Recommender | None  # the same, loaded; None when there is none or it cannot be used
    changed: dict[bytes, tuple[History, Changed]]
    replay: dict[bytes, History]
    provenance: Provenance
    seed: int
    snapshot_seconds: float
    new_interactions: int
    refit: bool
    cancel: threading.Event

    @property
    def parent(self) -> Announcement | None:
        """None: a model from nothing."""
        return self.slot if self.live is not None and not self.refit else None


class _Candidate(NamedTuple):
    """What a round brings back: an announcement when the candidate passed and is stored."""

    round: Round
    announcement: Announcement | None
    recommender: Recommender | None
    export_seconds: float


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
        self._clock, self._crash, self._fit = clock, crash, fit
        self._rng = np.random.default_rng(config.seed)
        self._device = pick_device(config.device, os.environ)
        self._artifacts = Artifacts(config.artifacts_url, plan.prefix)
        self._live: Recommender | None = None
        self._followed: Announcement | None = None  # what `_live` was loaded from, usable or not
        self._shown: list[tuple[str, str, str]] = []
        self._requests: deque[tuple[str, bool]] = deque()
        self._running: tuple[_Material, Future[_Candidate]] | None = None
        self._left_unlearnt = 0  # new interactions that the last round saw and did not get published
        self._tried = False
        self._rounds = 0
        self._round_due = self._look_due = self._gauges_due = time.monotonic()
        self._admin = KafkaAdminClient(**connection.kafka_python())
        ensure_topics(self._admin, plan)
        self._slots = Slots(connection, plan.models)
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
            self.view.settle(provenance.next_offsets, live.data_until)

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

    def request(self, trigger: str, refit: bool = False) -> None:
        """Ask for a round outside the schedule, a `refit` from nothing if fine-tuning is exhausted.

        Safe from any thread and from a signal handler. One trigger waits once.
        """
        if trigger not in TRIGGERS:
            raise ValueError(f"trigger {trigger!r} is none of {', '.join(TRIGGERS)}")
        if trigger not in [waiting for waiting, _ in self._requests]:
            self._requests.append((trigger, refit))

    def roll_back(self, reason: str) -> bool:
        """Take the previous model live; False when there is none. `reason` is one of the metric's."""
        try:
            good, bad = self._slots.roll_back()
        except NoWayBack as error:
            log.error("no rollback (%s): %s", reason, error)
            return False
        self.metrics.model_rollbacks[reason].inc()
        log.warning("rolled back from %s to %s: %s", bad.version, good.version, reason)
        self._followed = None
        self._follow_live()
        return True

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
                material, future = self._running
                self._running = None
                self._finish(material, future)
        elif (due := self._trigger(now)) is not None:
            self._begin(*due)
        if now >= self._gauges_due:
            self._gauges_due = now + _GAUGES_SECONDS
            self.metrics.progress_timestamp.set(self._clock())
            self.metrics.state_bytes["view"].set(self.view.bytes_on_disk())
            self.metrics.state_pending_compaction_bytes["view"].set(self.view.pending_compaction_bytes())

    def close(self) -> None:
        """Leave within a few seconds, whatever the round and the broker do."""
        if self._running is not None:
            material, future = self._running
            material.cancel.set()
            if not wait([future], _LEAVING_SECONDS).done:
                log.warning("leaving while a round is still at work; nothing of it is kept")
        for close in (self.view.close, self._slots.close, self._admin.close):
            try:
                close()
            except Exception as error:  # a broker that is gone must not keep the stores open
                log.warning("while closing: %s", error)

    # -- when ----------------------------------------------------------------------------------------------------------

    def _trigger(self, now: float) -> tuple[str, bool] | None:
        """(trigger, refit) of the round that may begin now."""
        if not self.view.level:
            return None
        if self._requests:
            return self._requests.popleft()
        if now < self._round_due:
            return None
        new = self.view.new_interactions
        if self._slots.live is None and not self._tried:
            enough = self.view.changed_users >= self._config.first_users and new >= self._config.first_interactions
        else:
            enough = new - self._left_unlearnt >= max(self._config.least_interactions, 1)
        return ("schedule", False) if enough else None

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
        if before is not None:
            log.warning("the live model moved from %s to %s, not by this trainer", before.version, live.version)
            if self._slots.previous is not None and self._slots.previous.version == live.version:
                self.metrics.model_rollbacks["manual"].inc()
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
            for slot in ("live", "previous")
            if (announcement := self._slots.current.get(slot)) is not None
        ]
        if shown != self._shown:
            for labels in self._shown:
                self.metrics.model_info.made.remove(*labels)
            for labels in shown:
                self.metrics.model_info.made.labels(*labels).set(1)
            self._shown = shown

    # -- a round -------------------------------------------------------------------------------------------------------

    def _begin(self, trigger: str, refit: bool) -> None:
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
            return
        self._rounds += 1
        slots = self._slots.current.values()
        material = _Material(
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
        )
        future: Future[_Candidate] = Future()
        # A daemon: leaving never waits for a step of torch that does not ask whether to stop.
        threading.Thread(target=self._work, args=(material, future), name="round", daemon=True).start()
        self._running = material, future

    def _work(self, material: _Material, future: Future[_Candidate]) -> None:
        try:
            future.set_result(self._round(material))
        except BaseException as error:
            future.set_exception(error)

    def _round(self, material: _Material) -> _Candidate:
        """Runs in a thread of its own and touches neither the view nor Kafka."""
        if self._config.threads:
            torch.set_num_threads(self._config.threads)
        parent = material.parent
        # Always from the artifact: what a refused candidate left in memory is never a parent.
        learner = None if parent is None else self._artifacts.load(parent, self._device)[0]
        outcome = fine_tune(
            learner,
            material.live,
            material.changed,
            material.replay,
            self._config.fine_tune,
            version=material.version,
            seed=material.seed,
            device=self._device,
            stop=material.cancel.is_set,
            fit=self._fit,
        )
        self._crash("fitted")
        if outcome.failed:
            return _Candidate(outcome, None, None, 0.0)
        start = time.perf_counter()
        manifest = Manifest(
            version=material.version,
            parent="" if parent is None else parent.version,
            created=int(self._clock() * 1000),
            data_until=outcome.data_until_ms,
            metrics=outcome.figures(),
        )
        announcement = self._artifacts.save(outcome.learner, manifest, material.provenance)
        self._crash("stored")
        return _Candidate(
            outcome, announcement, outcome.learner.recommender(material.version), time.perf_counter() - start
        )

    def _finish(self, material: _Material, future: Future[_Candidate]) -> None:
        trigger, metrics = material.trigger, self.metrics
        try:
            candidate = future.result()
        except Stopped:
            metrics.training_rounds[trigger, "skipped"].inc()
            log.info("round %d (%s): dropped, the live model moved meanwhile", self._rounds, trigger)
            return
        except Exception as error:
            self._left_unlearnt = material.new_interactions
            metrics.training_rounds[trigger, "failed"].inc()
            expected = isinstance(error, ModelError)
            log.error("round %d (%s) failed: %s", self._rounds, trigger, error, exc_info=not expected)
            return
        self._observe(material, candidate)
        why = "; ".join(f"{gate}: {reason}" for gate, reason in candidate.round.failed.items())
        outcome = "rejected"
        if candidate.announcement is not None:
            outcome, why = self._publish(material, candidate.announcement, candidate.recommender)
        if outcome == "rejected":
            self._left_unlearnt = material.new_interactions
        for gate in candidate.round.failed:
            metrics.training_gate_failures[gate].inc()
        metrics.training_rounds[trigger, outcome].inc()
        log.info("round %d (%s): %s", self._rounds, trigger, _story(material, candidate, outcome, why))

    def _publish(
        self, material: _Material, announcement: Announcement, recommender: Recommender | None
    ) -> tuple[str, str]:
        """Announce a stored candidate; returns (outcome, why)."""
        self._slots.catch_up()
        live = self._slots.live
        if live != material.slot:
            self._follow_live()
            return "skipped", f"meanwhile {live.version if live else 'no model'} became live"
        self._slots.promote(announcement, self._crash)
        self._followed, self._live = self._slots.live, recommender
        self._crash("announced")
        self.view.settle(material.provenance.next_offsets, announcement.data_until)
        self._crash("settled")
        self._left_unlearnt = 0
        self.metrics.model_promotions.inc()
        self.metrics.training_last_success_timestamp.set(self._clock())
        self._artifacts.retain(self._config.keep_versions, [slot.address for slot in self._slots.current.values()])
        return "promoted", "" if announcement.parent else "the first model"

    def _observe(self, material: _Material, candidate: _Candidate) -> None:
        metrics, round_ = self.metrics, candidate.round
        seconds = {"snapshot": material.snapshot_seconds, **round_.seconds, "export": candidate.export_seconds}
        for stage, value in seconds.items():
            metrics.training_round[stage].observe(value)
        metrics.training_examples.set(round_.users)
        metrics.training_loss_ratio["first"].set(round_.first_loss)
        metrics.training_loss_ratio["last"].set(round_.last_loss)
        metrics.training_gradient_norm.set(round_.gradient_norm)
        metrics.training_nonfinite_batches.inc(round_.dropped_batches)
        for name, value in round_.figures().items():
            slot, _, metric = name.partition(".")
            metrics.candidate_metric[slot, metric].set(value)
        if self._device.type == "cuda":
            metrics.gpu_memory_peak_bytes.set(torch.cuda.max_memory_allocated(self._device))


def _story(material: _Material, candidate: _Candidate, outcome: str, why: str) -> str:
    round_, evidence = candidate.round, candidate.round.evidence
    parts = [
        f"{material.version} from {material.parent.version if material.parent else 'nothing'}",
        f"{round_.users} users ({len(material.changed)} changed)",
        f"{len(round_.learner.items)} items (+{round_.new_items})",
        f"loss {round_.first_loss:.3f} -> {round_.last_loss:.3f}",
    ]
    if evidence is not None:
        live = "none" if evidence.live_ndcg is None else f"{evidence.live_ndcg:.4f}"
        bound = "" if evidence.lower is None else f", difference {evidence.difference:+.4f} from {evidence.lower:+.4f}"
        parts.append(
            f"NDCG@20 {evidence.ndcg:.4f}, live {live}, popularity {evidence.popularity_ndcg:.4f}"
            f" on {evidence.users} users{bound}"
        )
    parts.append(f"{outcome}{': ' if why else ''}{why}")
    seconds = {"snapshot": material.snapshot_seconds, **round_.seconds, "export": candidate.export_seconds}
    parts.append(", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items()))
    return "; ".join(parts)


def run_trainer(
    config: TrainerConfig,
    connection: KafkaConnection,
    plan: TopicPlan,
    registry: CollectorRegistry,
    stop: threading.Event,
) -> int:
    """Run the trainer until `stop`; returns 0. Raises what made it give up: start it again, it continues.

    SIGUSR1 asks for a round now. Lowers the priority of the whole process by `config.nice`.
    """
    if config.nice:
        os.nice(config.nice)
    if config.threads:
        torch.set_num_threads(config.threads)
    trainer = Trainer(config, connection, plan, TrainerMetrics(registry))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, lambda signum, frame: trainer.request("manual"))
    trainer.run(stop)
    return 0
