"""The updater: it reads interactions, and writes durable histories and refreshes.

In each turn, the polled records are merged into histories in memory; then the refresh of every changed user is sent. A
checkpoint makes the merged histories durable, in steps between the turns that follow; `stream.updater.checkpoint`
explains the order of its writes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from ops.metrics import UpdaterMetrics
from state.store import StoreMemory
from stream.clients.bulk_producer import was_fenced
from stream.clients.connection import KafkaConnection
from stream.clients.member import GroupMember
from stream.clients.schema_registry import RegistryUnavailable
from stream.health import Health
from stream.process import tune_gc
from stream.registry.slots import Slots
from stream.updater.checkpoint import Checkpoint
from stream.updater.config import UpdaterConfig
from stream.updater.cursor import decode_cursor
from stream.updater.intake import Intake
from stream.updater.merging import Changed
from stream.updater.partition import PartitionTask
from stream.updater.refreshes import RefreshSender
from stream.updater.reporting import Reporting
from stream.updater.rescoring import Rescoring
from stream.updater.restore import Restorer
from stream.updater.routing import RoutedReader
from stream.updater.store_folder import StoreFolder
from stream.wire.layout import ready_topics
from stream.wire.topics import TopicError, TopicPlan

__all__ = ["Updater", "run_updater"]

log = logging.getLogger(__name__)

_FORGETS_SECONDS = 0.2  # how often forgets from other partitions are looked for, where no events are routed
_STEP_SECONDS = 0.005  # longest wait for a record while a checkpoint waits for its next step


class Overtaken(RuntimeError):
    """The broker takes no transactions of this updater any more, although it still has its place in the group: another
    updater of the same name began and did not stay, or joined first, or a transaction took too long."""


class Updater:
    """One worker of the updater group. `crash` is called with each of `CRASH_POINTS` as it is passed."""

    def __init__(
        self,
        config: UpdaterConfig,
        connection: KafkaConnection,
        plan: TopicPlan,
        metrics: UpdaterMetrics,
        *,
        clock: Callable[[], float] = time.time,
        crash: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._config, self._plan, self._metrics, self._crash = config, plan, metrics, crash
        self._clock_ms = lambda: int(clock() * 1000)
        self._tasks: dict[int, PartitionTask] = {}
        fetch_bytes = max(4 * 1024 * 1024, plan.message_bytes)
        layout = ready_topics(connection, plan)
        strict = "strict" in (config.repartition, layout.routing)
        self._stores = StoreFolder(config.state_dir / "histories", config.keep_released_seconds)
        memory = StoreMemory(config.store)
        self._restorer = Restorer(connection, plan.histories, self._stores, memory, plan.tombstone_ms, self._clock_ms)
        self._reporting = Reporting(config.windows, connection, plan.monitor_windows, metrics)
        self._intake = Intake(config, plan, strict, metrics, self._reporting.signals)
        self._refreshes = RefreshSender(connection, plan)
        self._rescoring = Rescoring(config.rescoring, Slots(connection, plan.models), self._refreshes, self._clock_ms)
        self._checkpoint = Checkpoint(config, connection, plan, metrics, self._clock_ms, crash)
        self._routed = RoutedReader(
            connection, plan.routed, config.poll_records, fetch_bytes, 0.0 if strict else _FORGETS_SECONDS
        )
        self._member = GroupMember(
            connection,
            plan.prefix + config.group,
            plan.interactions,
            session_seconds=config.session_seconds,
            poll_records=config.poll_records,
            fetch_bytes=fetch_bytes,
            instance=config.worker or None,
        )

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event, health: Health | None = None) -> None:
        """Work until `stop`; then make a checkpoint, leave the group and close everything. An unexpected error is
        raised: the process ends without committing, and its successor replays. The partitions of a named updater wait
        for its successor. Raises `NameTaken` when another updater has taken the name, and `Overtaken` (see there)."""
        log.info("updater %s reads %s", self._config.worker or "without a name", self._plan.interactions)
        stay = True
        try:
            while not stop.is_set():
                self.turn()
                if health is not None:
                    waits_for = _waits_for(self._member.generation is not None, self._tasks.values())
                    health.turned(waits_for or self._intake.registry.waits_for)
            self.checkpoint()
            self._reporting.report(self._tasks.values(), last=True)
            stay = False
        except KafkaError as error:
            if not was_fenced(error):
                raise
            self._member.refuse_second()
            raise Overtaken(str(error)) from error
        finally:
            self.close(stay)

    def turn(self) -> None:
        """Poll once, merge, send refreshes; begin a checkpoint when one is due, or do a step of it. Then wait, so that
        records gather for the next poll."""
        config, restoring = self._config, bool(self._restorer)
        patience = min(_STEP_SECONDS, config.poll_seconds) if self._checkpoint.under_way else config.poll_seconds
        polled = self._member.poll(0 if restoring else patience, config.poll_records // 2)
        for tp in self._follow_moves():
            # These records were read before the partition moved. Its owner, even if that is this worker again, starts
            # from the committed offset.
            polled.pop(tp, None)
        if self._restorer:
            self._run_restored()
        began = time.monotonic()
        batches = [*polled.items(), *self._routed.poll().items()]
        if batches:
            self._crash("polled")
            changes = self._merge(batches)
            self._crash("merged")
            self._refreshes.send_changes(changes)
        self._rescoring.send_due(self._running, self._intake.newest_ms)
        if self._running:
            self._metrics.progress_timestamp.set_to_current_time()
        self._step_checkpoint()
        if batches and not self._restorer:
            # A round trip to the broker costs more than merging the few records that arrive in its time.
            time.sleep(max(began + config.turn_seconds - time.monotonic(), self._intake.registry.pause_seconds, 0))

    def checkpoint(self) -> None:
        """Make everything merged so far durable, now."""
        self._checkpoint.begin(self._running, self._refreshes.take(), self._member)
        self._checkpoint.finish()

    def close(self, stay: bool = False) -> None:
        """Close everything. With `stay`, do not leave the group, so that a successor of the same name has the place."""
        for close in (
            lambda: self._member.close(stay),
            self._refreshes.close,
            self._checkpoint.close,
            self._restorer.close,
            self._routed.close,
            self._rescoring.close,
            self._reporting.close,
        ):
            try:
                close()
            except Exception as error:  # a broker that is gone must not keep the stores open  # noqa: BLE001
                log.warning("while closing: %s", error)
        for task in self._tasks.values():
            task.release()
        self._tasks.clear()

    # -- partitions that come and go -----------------------------------------------------------------------------------

    @property
    def _running(self) -> list[PartitionTask]:
        return [task for task in self._tasks.values() if task.state == "running"]

    def _follow_moves(self) -> set[TopicPartition]:
        """Follow the moves of partitions since the last call. Returns the partitions that came or went."""
        moves = self._member.moves
        if not moves:
            return set()
        self._checkpoint.finish()  # the broker refuses its transaction if a moved partition has another owner by now
        moved: set[TopicPartition] = set()
        while moves:
            kind, partitions = moves.popleft()
            self._metrics.rebalances.inc()
            log.info("partitions %s: %s", kind, sorted(tp.partition for tp in partitions))
            moved |= partitions
            for tp in partitions:
                self._release(tp.partition)
                if kind == "assigned":
                    self._assign(tp)
        return moved

    def _assign(self, tp: TopicPartition) -> None:
        if tp.partition >= self._plan.partitions:
            raise TopicError(
                f"{tp.topic} was grown beyond its {self._plan.partitions} partitions, which splits users in two: stop "
                f"updaters and scorers, then run `freshet repartition` to move everybody; nothing is lost meanwhile"
            )
        task = self._tasks[tp.partition] = PartitionTask(tp.partition)
        # Ask for the committed offset first, and only then for the end of the changelog: the broker gives the committed
        # offset once no transaction of a former owner is pending, so the end that is read later covers all histories
        # that were committed with that offset.
        committed, beginning = self._member.committed(tp), self._member.beginning(tp)
        if committed is not None and committed.offset < beginning:
            lost = beginning - committed.offset
            log.error("%s/%d: retention removed %d records before they were read", *tp, lost)
        start = beginning if committed is None else max(committed.offset, beginning)
        cursor = decode_cursor("" if committed is None else committed.metadata)
        task.restore(self._restorer.begin(tp.partition), {tp.topic: start}, cursor)

    def _release(self, number: int) -> None:
        self._restorer.abandon(number)
        self._routed.release([number])
        task = self._tasks.pop(number, None)
        if task is not None:
            task.release()
            self._stores.leave(number)

    def _run_restored(self) -> None:
        """Do a step of the restores; begin to read the records of partitions whose stores have caught up."""
        for number in self._restorer.step(0.02 if self._running else 0.1):
            task, tp = self._tasks[number], TopicPartition(self._plan.interactions, number)
            self._member.start(tp, task.committed[tp.topic])
            committed = self._member.committed(TopicPartition(self._plan.routed, number))
            start = self._routed.begin(number, None if committed is None else committed.offset)
            task.run({self._plan.routed: start})

    # -- work ----------------------------------------------------------------------------------------------------------

    def _merge(self, batches: Iterable[tuple[TopicPartition, list[ConsumerRecord]]]) -> list[Changed]:
        changes: list[Changed] = []
        for tp, records in batches:
            task = self._tasks.get(tp.partition)
            if task is not None and task.state == "running":  # else it is not ours any more, or not yet
                try:
                    changes += self._intake.merge(task, tp.topic, records)
                except RegistryUnavailable as error:
                    # No record of this batch was merged or will be committed: the batch is read again.
                    self._intake.registry.note(error)
                    (self._routed if tp.topic == self._plan.routed else self._member).start(tp, records[0].offset)
        return changes

    def _step_checkpoint(self) -> None:
        gathered = max(sum(task.unsaved.records for task in self._tasks.values()), self._refreshes.in_flight)
        if self._checkpoint.due or gathered >= self._config.checkpoint_users:
            ended = self._checkpoint.begin(self._running, self._refreshes.take(), self._member)
        else:
            ended = self._checkpoint.step()
        if ended:
            self._reporting.report(self._tasks.values())
            self._intake.refusals.report()
            self._stores.sweep()


def _waits_for(joined: bool, tasks: Iterable[PartitionTask]) -> str:
    """What keeps an updater from its work; empty when nothing does, or when it has no partitions."""
    if not joined:
        return "the group has not shared out its partitions"
    waiting = sorted(task.number for task in tasks if task.state != "running")
    return f"being restored: partitions {', '.join(map(str, waiting))}" if waiting else ""


def run_updater(
    config: UpdaterConfig,
    connection: KafkaConnection,
    plan: TopicPlan,
    metrics: UpdaterMetrics,
    stop: threading.Event,
    health: Health | None = None,
) -> None:
    """Run one updater until `stop`. Raises the error that ended it; after a restart, its successor continues.

    Of two updaters of one name, the one that joined the group last has the place in the group, and the one that began
    transactions last has the transactions. When these are not the same updater, the one with the place begins again, as
    after a crash: it reads from the committed offsets, and then has both.
    """
    while True:
        updater = Updater(config, connection, plan, metrics)
        tune_gc()
        try:
            return updater.run(stop, health)
        except Overtaken as error:
            log.warning("beginning again from what is committed, because transactions are refused: %s", error)
