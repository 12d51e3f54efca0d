"""The trainer: follows `histories`, fine-tunes in rounds, and promotes what passes the gates.

One thread follows Kafka and decides. Its parts, each in its own file:

    history_view   the users, and who has something new to teach
    window_feed    the counts of the workers, for the closed loop, which asks for rounds and rollbacks
    rounds         one round at a time: fit in a second thread, judged, promoted or tried as canary
    lifecycle      which models are in service: slots and decisions, changed in a fixed order
    skew           whether the scorers recommend what the trainer would
    item lists     trending, new and similar items (`stream.itemlists`)
    pilot_guard    exports the figures of a pilot, and stops a variant that does harm
    lock           keeps a second trainer out
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from prometheus_client import CollectorRegistry

from model.device import pick_device
from ops.instruments import InfoGauge
from ops.labels import RollbackReason, Trigger
from ops.metrics import TrainerMetrics
from ops.monitor.closed_loop import ClosedLoop
from ops.monitor.decisions import SkipRound, StartRound
from ops.monitor.probation import RollBack
from state.store import StoreMemory
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.health import Health
from stream.itemlists.keeper import ItemListKeeper
from stream.process import run_at_idle_priority
from stream.registry.artifacts import Artifacts
from stream.registry.slots import NoWayBack, SlotWriter
from stream.trainer import lifecycle
from stream.trainer.config import TrainerConfig
from stream.trainer.fine_tune import Fit, fit
from stream.trainer.history_view import HistoryView
from stream.trainer.lifecycle import ModelLifecycle
from stream.trainer.live_model import LiveModel
from stream.trainer.lock import TrainerLock
from stream.trainer.loop_file import LoopFile
from stream.trainer.pilot_guard import PilotGuard
from stream.trainer.round import RoundInputs, RoundWorker
from stream.trainer.rounds import Rounds
from stream.trainer.skew import PublishedLists, SkewCheck
from stream.trainer.window_feed import WindowFeed, poll_lag
from stream.wire.examples_topic import ExampleReader
from stream.wire.layout import ready_topics
from stream.wire.records import CANARY_SLOT
from stream.wire.topics import TRAINER_GROUP, TopicPlan

__all__ = ["CRASH_POINTS", "Trainer", "run_trainer"]

log = logging.getLogger(__name__)

# The moments between which a killed trainer must leave everything usable; tests kill it at each.
CRASH_POINTS = ("fitted", "stored", *lifecycle.CRASH_POINTS, "learnt")

_SLOTS_SECONDS = 0.5  # how often `models` is read
_GAUGES_SECONDS = 5.0
_GATHER_SECONDS = 0.05  # wait after a turn with few records: nothing is urgent, and each turn asks several topics
_FEW_RECORDS = 100


class _Closeable(Protocol):
    def close(self) -> None: ...


_Part = TypeVar("_Part", bound=_Closeable)


class Trainer:
    """One trainer. `crash` is called with each of `CRASH_POINTS` as it is passed; `fit` trains a learner.

    `__init__` is long because it opens all parts, in the order in which they depend on each other.
    """

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
        self.metrics, self._clock = metrics, clock
        device = pick_device(config.device, os.environ)
        ready_topics(connection, plan)
        self._opened: list[_Closeable] = []
        try:
            admin = self._opens(admin_client(connection))
            self._lock = TrainerLock(connection, admin, plan.prefix + TRAINER_GROUP, plan.models, config.state_dir)
            self._opens(self._lock)
            file = LoopFile(config.state_dir / "decisions.json")
            loop = ClosedLoop(config.closed_loop, metrics, clock, file.load())
            slots = self._opens(SlotWriter(connection, plan.models, "trainer"))
            self.lifecycle = ModelLifecycle(slots, loop, file, crash)
            self.lifecycle.recover()
            self._feed = self._opens(WindowFeed(loop, connection, plan.monitor_windows))
            self._feed.restore()
            artifacts = Artifacts(config.artifacts_url, plan.prefix)
            self._live = LiveModel(artifacts, device)
            self._live.follow(slots.live)
            kinds, memory = config.fine_tune.events, StoreMemory(config.store)
            self._item_lists = self._opens(
                ItemListKeeper(
                    config.item_lists,
                    config.items,
                    kinds,
                    connection,
                    plan,
                    config.state_dir / "item-counts",
                    metrics,
                    clock,
                )
            )
            self.view = self._opens(
                HistoryView(
                    connection,
                    admin,
                    plan.histories,
                    config.state_dir / "view",
                    memory,
                    tombstone_ms=plan.tombstone_ms,
                    fitted_until_ms=slots.live.data_until if slots.live and self._live.recommender else 0,
                    left=self._live.provenance.left if self._live.provenance is not None else {},
                    clock_ms=lambda: int(clock() * 1000),
                    watch=self._item_lists.changed,
                )
            )
            self._item_lists.count(
                {"topic_id": self.view.identity},
                memory,
                self.view.partitions,
                lambda number: self.view.partitions[number].store,
            )
            lists = PublishedLists(connection, plan.recommendations, plan.partitions, kinds)
            self._skew = self._opens(SkewCheck(lists, metrics))
            self._pilots = self._opens(PilotGuard(connection, plan.pilots, metrics, clock))
            worker = RoundWorker(config, artifacts, device, clock=clock, crash=crash, fit=fit)
            examples = self._opens(ExampleReader(connection, plan.examples, config.reranker.most_examples))
            inputs = RoundInputs(config, self.view, examples, clock)
            self.rounds = self._opens(
                Rounds(config, self.lifecycle, self._live, self.view, self._skew, artifacts, inputs, worker, metrics)
            )
            self._model_info = InfoGauge(metrics.model_info)
            self._slots_due = self._gauges_due = time.monotonic()
            self._begin(device)
        except BaseException:
            self.close()
            raise

    def _opens(self, part: _Part) -> _Part:
        """Register a part that `close` closes, before the parts that were opened earlier."""
        self._opened.append(part)
        return part

    def _begin(self, device: torch.device) -> None:
        """Mark in the view what the live model has learnt, and follow the slots."""
        live = self.lifecycle.slots.live
        provenance = self._live.provenance
        if live is not None and provenance is not None and provenance.topic_id == self.view.identity:
            self.view.mark_learnt(provenance.next_offsets, live.data_until, provenance.left)
        self._follow_slots()
        log.info(
            "trainer follows %s, fits on %s (%s), live is %s",
            self.view.topic,
            device,
            torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads",
            live.version if live else "no model yet",
        )

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event, health: Health | None = None) -> None:
        """Work until `stop`. An unexpected error outside a round is raised: start again, nothing is lost."""
        try:
            while not stop.is_set():
                if self.turn() < _FEW_RECORDS:
                    stop.wait(_GATHER_SECONDS)
                if health is not None:  # the lock is held: `__init__` waited for it
                    health.turned("" if self.view.caught_up else "the histories are being read")
        finally:
            self.close()

    def request(self, trigger: Trigger, refit: bool = False) -> None:
        """Ask for a round now, whatever the loop decides. A `refit` trains a new model: for when fine-tuning brings
        nothing more, or when no ancestor of the model may have seen the data of forgotten users.

        Safe from any thread and from a signal handler. A trigger that is waiting already is not added again.
        """
        self.rounds.schedule.request(trigger, refit)

    def roll_back(self, reason: RollbackReason) -> bool:
        """Promote the previous model again; False when there is none."""
        try:
            good, bad = self.lifecycle.roll_back()
        except NoWayBack as error:
            log.error("no rollback (%s): %s", reason, error)
            return False
        self.metrics.model_rollbacks[reason].inc()
        log.warning("rolled back from %s to %s: %s", bad.version, good.version, reason)
        self._follow_slots()
        return True

    def acknowledge(self) -> None:
        """An operator has looked at the rollbacks: promotions may go on."""
        self.lifecycle.loop.decisions.probation.acknowledge()

    def turn(self, timeout_ms: int = 200) -> int:
        """Take in new records, follow the slots, go on with rounds, decide. Returns how many histories came."""
        taken = self.view.poll(timeout_ms)
        now = time.monotonic()
        if now >= self._slots_due:
            self._slots_due = now + _SLOTS_SECONDS
            self._lock.check(self.lifecycle.slots)
            self.lifecycle.slots.poll()
            self._follow_slots()
        self.rounds.turn()
        self._feed.poll()
        if self.view.caught_up:
            self._decide()
            self._skew.turn(self._live.recommender, lambda number, users: self.view.partitions[number].histories(users))
            self._item_lists.turn(self._live.recommender)
        self._pilots.turn()
        self.lifecycle.save()
        if now >= self._gauges_due:
            self._gauges_due = now + _GAUGES_SECONDS
            self._export()
        return taken

    def close(self) -> None:
        """Leave within a few seconds, whatever the round and the broker do."""
        while self._opened:
            try:
                self._opened.pop().close()
            except Exception as error:  # a broker that is gone must not keep the stores open  # noqa: BLE001
                log.warning("while closing: %s", error)

    # -- decisions -----------------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        """Carry out what the closed loop decides, and begin the rounds that were requested or are due."""
        loop, rounds = self.lifecycle.loop, self.rounds
        if rounds.idle:
            if requested := rounds.schedule.requested():
                loop.decisions.began()
                rounds.begin(*requested)
                return
            if rounds.schedule.due(first=self.lifecycle.phase == "none"):
                loop.decisions.request("schedule")
        for action in loop.turn(self.view.new_interactions):
            match action:
                case StartRound(trigger, refit, why):
                    if why:
                        log.info("a round is due (%s): %s", trigger, why)
                    rounds.begin(trigger, refit)
                case SkipRound(trigger, gate, why):
                    log.warning("no round (%s): %s", trigger, why)
                    self.metrics.training_rounds[trigger, "skipped"].inc()
                    self.metrics.training_gate_failures[gate].inc()
                case RollBack(reason, why):
                    log.error("the live model must go: %s", why)
                    if not self.roll_back(reason):
                        loop.moved_by_hand(loop.decisions.state.live, "", rolled_back=False)

    def _follow_slots(self) -> None:
        """Note what others did to the live slot, and load what is live."""
        if self.lifecycle.follow() == "rolled back":
            self.metrics.model_rollbacks["manual"].inc()
        slots = self.lifecycle.slots
        if self._live.follow(slots.live):
            self.rounds.cancel()
        self._model_info.show(
            (slot, announcement.version, announcement.parent)
            for slot in ("live", CANARY_SLOT, "previous")
            if (announcement := slots.current.get(slot)) is not None
        )

    def _export(self) -> None:
        self.metrics.progress_timestamp.set(self._clock())
        stores = [partition.store for partition in self.view.partitions.values()]
        self.metrics.state_bytes["view"].set(sum(store.bytes_on_disk() for store in stores))
        pending = sum(store.pending_compaction_bytes() for store in stores)
        self.metrics.state_pending_compaction_bytes["view"].set(pending)


def run_trainer(
    config: TrainerConfig,
    connection: KafkaConnection,
    plan: TopicPlan,
    registry: CollectorRegistry,
    stop: threading.Event,
    health: Health | None = None,
) -> int:
    """Run the trainer until `stop`; returns 0. Raises the error that ended it: after a restart it continues.

    SIGUSR1 asks for a round now, SIGHUP for a round that trains a new model, SIGUSR2 allows promotions again after
    rollbacks closed them. With `config.spare_time_only` the calling thread, and the threads that it starts, run only
    when no other process wants the core.
    """
    if config.spare_time_only:
        run_at_idle_priority()
    if config.threads:
        torch.set_num_threads(config.threads)
    trainer = Trainer(config, connection, plan, TrainerMetrics(registry))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, lambda signum, frame: trainer.request("manual"))
        signal.signal(signal.SIGHUP, lambda signum, frame: trainer.request("manual", refit=True))
        signal.signal(signal.SIGUSR2, lambda signum, frame: trainer.acknowledge())
    groups = {
        plan.prefix + config.updater_group: {plan.interactions: plan.partitions},
        plan.prefix + config.scorer_group: {plan.refreshes: plan.partitions},
    }
    left = threading.Event()
    lag = poll_lag(connection, groups, trainer.metrics, left)
    try:
        trainer.run(stop, health)
    finally:
        left.set()
        lag.join(2)
    return 0
