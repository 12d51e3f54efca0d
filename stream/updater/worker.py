"""The updater: interactions in, durable histories and refreshes out.

A turn's records are merged into histories in memory, then every changed user's refresh leaves. A checkpoint makes what
was merged before it durable, step by step between the turns that follow, in the one order that loses nothing:

    1. every refresh is acknowledged
    2. one Kafka transaction: changed histories, dead letters, routed events, consumed offsets
    3. RocksDB: the same histories with the changelog offset they reach

A crash before 2 replays the events: the stores do not hold them yet, so the merge finds them new and sends everything
again. A crash between 2 and 3 leaves the stores behind the changelog, and restoring closes the gap. RocksDB first would
lose events: on replay the merge would find nothing new and send nothing, and the offsets would then be committed.

Events that come while a checkpoint is under way are merged on the histories that it carries, not on the older ones in
RocksDB, and belong to the next. A checkpoint that the broker refuses goes back: the next carries both. Partitions move
only between checkpoints.

A worker that lost its partitions cannot overwrite newer histories: the transaction carries its group generation, and
the broker refuses a stale one.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, NamedTuple, get_args

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import CommitFailedError, KafkaError
from kafka.structs import OffsetAndMetadata

from ops.metrics import UpdaterMetrics
from ops.monitor.signals import UpdaterSignals
from ops.monitor.windows import WindowConfig, WindowCounter
from state import codec
from state.history import EMPTY, History
from state.store import StoreConfig, StoreMemory
from stream.clients.admin import admin_client
from stream.clients.bulk_producer import BulkProducer
from stream.clients.connection import KafkaConnection
from stream.clients.fresh_poll import poll_fresh
from stream.process import tune_gc
from stream.registry.slots import Slots
from stream.updater.merging import Arrival, Change, Outcomes, apply, decode_batch
from stream.updater.partition import OwnedPartition
from stream.updater.rescoring import RescoringConfig, RescoringWalk
from stream.updater.routing import Repartition, RoutedReader, routed_record, sampled_misplaced
from stream.wire.changelog import Restorer
from stream.wire.dead_letters import dead_letter
from stream.wire.partitioning import home_of
from stream.wire.records import Limits, Refresh, RefreshReason
from stream.wire.topics import UPDATER_GROUP, TopicPlan, ensure_topics
from stream.wire.windows_topic import WindowSender, worker_name

__all__ = ["Updater", "UpdaterConfig", "run_updater"]

log = logging.getLogger(__name__)

_SLOTS_SECONDS = 0.5  # how often `models` is looked at
_GAUGES_SECONDS = 5.0
_STEPS = 8  # in which the histories of a checkpoint are sent: events wait for one, not for all
_STEP_RECORDS = 50  # at least
_STEP_SECONDS = 0.005  # longest wait for a record while a checkpoint waits for its next step

# The moments between which a killed process must lose nothing; tests kill it at each.
CRASH_POINTS = ("polled", "merged", "refreshed", "sending", "produced", "committed", "stored")


@dataclass(frozen=True)
class UpdaterConfig:
    state_dir: Path
    worker: str = field(default_factory=socket.gethostname)  # names its transactions: unique, and stable over restarts
    group: str = UPDATER_GROUP
    history_items: int = 200  # newest items kept per user
    checkpoint_seconds: float = 1.0
    # Changed users, or refreshes on their way, in memory before one is due early; as many may be in the one under way.
    checkpoint_users: int = 20_000
    poll_records: int = 5_000
    poll_seconds: float = 0.1  # longest wait for a record, and so for a signal
    turn_seconds: float = 0.012  # least time from one poll that brought something to the next
    session_seconds: float = 30.0  # silence after which the group gives this worker's partitions away
    transaction_seconds: float = 15.0
    repartition: Repartition = "off"  # strict: events that lie in another partition than their user's are sent there
    limits: Limits = field(default_factory=Limits)
    rescoring: RescoringConfig = field(default_factory=RescoringConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)

    def __post_init__(self) -> None:
        for name in ("history_items", "checkpoint_seconds", "checkpoint_users", "poll_records", "session_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.repartition not in get_args(Repartition):
            raise ValueError(f"repartition must be one of {get_args(Repartition)}, got {self.repartition!r}")
        if self.turn_seconds < 0:
            raise ValueError(f"turn_seconds must not be negative, got {self.turn_seconds}")
        if self.transaction_seconds < 1:
            raise ValueError(f"transaction_seconds must be at least 1, got {self.transaction_seconds}")


class _Changed(NamedTuple):
    """A user whose refresh leaves at the end of the turn."""

    partition: int
    user: bytes
    change: Change
    history: bytes  # encoded


def _refresh(change: Change, history: bytes) -> Refresh:
    reason: RefreshReason = "forget" if change.forgotten and not change.history.items else "event"
    return Refresh(reason, change.arrived_ms, tuple(change.new), codec.for_reading(history))


class _Moves(ConsumerRebalanceListener):
    """Notes what changed hands, for the main loop to act on.

    Listeners run on the consumer's IO thread, where every blocking call raises and a slow one stops the heartbeats.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self.noted: deque[tuple[str, frozenset[TopicPartition]]] = deque()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        partitions = frozenset(assigned)
        self._consumer.pause(*partitions)  # nothing is fetched before the history store is level
        self.noted.append(("assigned", partitions))

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.noted.append(("revoked", frozenset(revoked)))

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self.noted.append(("revoked", frozenset(lost)))


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
        self._owned: dict[int, OwnedPartition] = {}
        self._starts: dict[int, dict[str, int]] = {}  # committed offsets by topic, of partitions being restored
        self._refreshes: list = []  # futures of refreshes on their way
        self._newest_ms = 0  # event time
        self._signals = UpdaterSignals(WindowCounter(worker_name("updater"), config.windows), metrics)
        self._gauges_due = 0.0
        self._walk: RescoringWalk | None = None
        self._live = ""  # version of the live model
        self._slots_due = 0.0
        self._under_way: Iterator[None] | None = None  # a checkpoint, by steps
        self._checkpoint_due = time.monotonic() + config.checkpoint_seconds
        self._refused: tuple[tuple[str, int], float] | None = None  # the membership that is, and since when
        self._memory = StoreMemory(config.store)
        client = connection.kafka_python()
        ensure_topics(connection, plan)
        self._admin = admin_client(connection)
        self._restorer = Restorer(
            connection,
            self._admin,
            plan.histories,
            config.state_dir / "histories",
            self._memory,
            plan.tombstone_ms,
            self._clock_ms,
        )
        self._slots = Slots(connection, plan.models)
        self._windows = WindowSender(connection, plan.monitor_windows)
        self._live = "" if self._slots.live is None else self._slots.live.version
        sending = {
            **client,
            "acks": "all",
            "metrics_enabled": False,  # the client's own figures cost on every record and are read by nobody
            "batch_size": 256 * 1024,
            "max_request_size": plan.message_bytes + 2 * 1024 * 1024,
        }
        transaction_ms = int(config.transaction_seconds * 1000)
        self._refresh_producer = BulkProducer(
            **sending, linger_ms=2, request_timeout_ms=10_000, delivery_timeout_ms=30_000
        )
        self._producer = BulkProducer(
            **sending,
            linger_ms=5,
            request_timeout_ms=min(10_000, transaction_ms // 2),
            delivery_timeout_ms=transaction_ms,
            transactional_id=f"{plan.prefix}{config.group}-{config.worker}",
            transaction_timeout_ms=transaction_ms,
        )
        # Aborts what a killed predecessor of this name left open, and fences it if it still lives.
        self._producer.init_transactions()
        self._consumer = KafkaConsumer(
            **client,
            group_id=plan.prefix + config.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # Makes the broker hold back committed offsets while a transaction that moves them is pending.
            isolation_level="read_committed",
            partition_assignment_strategy=[CooperativeStickyAssignor],
            session_timeout_ms=int(config.session_seconds * 1000),
            heartbeat_interval_ms=max(int(config.session_seconds * 1000 / 10), 300),
            max_poll_records=config.poll_records,
            max_partition_fetch_bytes=max(4 * 1024 * 1024, plan.message_bytes),
            fetch_max_wait_ms=100,
            metrics_enabled=False,
        )
        self._routed = (
            RoutedReader(connection, plan.routed, config.poll_records, max(4 * 1024 * 1024, plan.message_bytes))
            if config.repartition == "strict"
            else None
        )
        self._moves = _Moves(self._consumer)
        # A member that joins before it knows the topic is assigned nothing, and may not notice when it learns of it.
        while not self._consumer.partitions_for_topic(plan.interactions):
            time.sleep(0.1)
        self._consumer.subscribe([plan.interactions], listener=self._moves)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`; then checkpoint and let go of everything. Any unexpected error propagates: the process
        ends without committing, and its successor replays."""
        log.info("updater %s reads %s", self._config.worker, self._plan.interactions)
        try:
            while not stop.is_set():
                self.turn()
            self.checkpoint()
            self._report(last=True)
        finally:
            self.close()

    def turn(self) -> None:
        """Poll once, merge, send refreshes, begin a checkpoint when due or do a step of it; let records gather for the
        next poll."""
        restoring = bool(self._restorer)
        config = self._config
        patience = config.poll_seconds if self._under_way is None else min(_STEP_SECONDS, config.poll_seconds)
        polled = poll_fresh(self._consumer, 0 if restoring else patience, config.poll_records // 2)
        for tp in self._follow_moves():
            # Read before it moved. Who gets it, be it this worker again, starts from the committed offset.
            polled.pop(tp, None)
        if restoring or self._restorer:
            self._finish_restores()
        began = time.monotonic()
        batches = [*polled.items(), *(self._routed.poll().items() if self._routed else ())]
        if batches:
            self._crash("polled")
            changes: list[_Changed] = []
            for tp, records in batches:
                partition = self._owned.get(tp.partition)
                if partition is not None:  # else it is not ours any more, or not yet
                    changes += self._merge(tp, partition, records)
            self._crash("merged")
            self._send_refreshes(changes)
        self._rescore()
        if self._owned:
            self._metrics.progress_timestamp.set_to_current_time()
        gathered = max(sum(partition.unsaved.records for partition in self._owned.values()), len(self._refreshes))
        if time.monotonic() >= self._checkpoint_due or gathered >= config.checkpoint_users:
            self._finish_checkpoint()
            self._under_way = self._checkpoint()
        self._advance_checkpoint()
        if batches and not self._restorer:
            # A client's round trip costs more than the few records that a brisk stream puts into it.
            time.sleep(max(began + config.turn_seconds - time.monotonic(), 0))

    def close(self) -> None:
        for close in (
            lambda: self._consumer.close(timeout_ms=3000),
            lambda: self._refresh_producer.close(timeout=3),
            lambda: self._producer.close(timeout=3),
            self._restorer.close,
            *([self._routed.close] if self._routed else []),
            self._slots.close,
            self._windows.close,
            self._admin.close,
        ):
            try:
                close()
            except Exception as error:  # a broker that is gone must not keep the stores open
                log.warning("while closing: %s", error)
        for partition in self._owned.values():
            partition.store.close()
        self._owned.clear()

    # -- partitions that come and go -----------------------------------------------------------------------------------

    def _follow_moves(self) -> set[TopicPartition]:
        """Returns what came or went."""
        if not self._moves.noted:
            return set()
        self._finish_checkpoint()  # whose transaction the broker refuses when what moved is another's by now
        moved: set[TopicPartition] = set()
        while self._moves.noted:
            kind, partitions = self._moves.noted.popleft()
            self._metrics.rebalances.inc()
            log.info("partitions %s: %s", kind, sorted(tp.partition for tp in partitions))
            moved |= partitions
            for tp in partitions:
                self._release(tp.partition)
                if kind == "assigned":
                    self._restorer_begin(tp)
        return moved

    def _release(self, number: int) -> None:
        """Let a partition go. What was not checkpointed is dropped: its next owner replays it."""
        self._restorer.abandon(number)
        if self._routed:
            self._routed.release([number])
        partition = self._owned.pop(number, None)
        if partition is not None:
            partition.store.close()

    def _restorer_begin(self, tp: TopicPartition) -> None:
        # The committed offset first, the end of the changelog after it: the broker answers once no transaction of a
        # former owner is pending, so the end then covers all histories that those offsets stand for.
        committed = self._consumer.committed(tp)
        beginning = self._consumer.beginning_offsets([tp])[tp]
        if committed is not None and committed < beginning:
            lost = beginning - committed
            log.error("%s/%d: retention removed %d records before they were read", tp.topic, tp.partition, lost)
        self._starts[tp.partition] = {tp.topic: max(committed or 0, beginning)}
        self._restorer.begin(tp.partition)

    def _finish_restores(self) -> None:
        for number, store in self._restorer.step(0.02 if self._owned else 0.1).items():
            starts = self._starts.pop(number)
            tp = TopicPartition(self._plan.interactions, number)
            # kafka-python keeps an old position when a partition comes back: say where to start.
            self._consumer.seek(tp, starts[tp.topic])
            self._consumer.resume(tp)
            if self._routed:
                committed = self._consumer.committed(TopicPartition(self._plan.routed, number))
                starts[self._plan.routed] = self._routed.begin(number, committed)
            self._owned[number] = OwnedPartition.starting(store, starts)

    # -- merging -------------------------------------------------------------------------------------------------------

    def _merge(self, tp: TopicPartition, partition: OwnedPartition, records: list[ConsumerRecord]) -> list[_Changed]:
        metrics, limit, number = self._metrics, self._config.history_items, tp.partition
        metrics.events_consumed["interactions"].inc(len(records))
        misplaced = sampled_misplaced(records, self._plan.partitions)
        if misplaced:
            metrics.foreign_partition.inc(misplaced)
        arrivals, rejected = decode_batch(records, self._config.limits)
        for record, error in rejected:
            metrics.dead_letters[error.reason].inc()
            partition.unsaved.dead.append((record, error))
        if self._routed:
            self._route(number, partition, arrivals)
        before = self._histories(partition, arrivals)
        outcomes = Outcomes()
        changes: list[_Changed] = []
        for user, events in arrivals.items():
            change = apply(before[user], events, limit, outcomes)
            if change is not None:
                value = codec.encode(change.history)
                partition.unsaved.histories[user] = value
                partition.unsaved.arrivals_ms.append(change.arrived_ms)
                changes.append(_Changed(number, user, change, value))
                self._note(user, 0 if change.forgotten else before[user].newest_ms, change)
                partition.newest_ms = max(partition.newest_ms, change.history.newest_ms)
        self._newest_ms = max(self._newest_ms, partition.newest_ms)
        self._signals.feed(
            self._newest_ms,
            duplicates=outcomes.duplicate,
            late=outcomes.late,
            dead_letters=len(rejected),
            misdated=sum(error.reason == "timestamp" for _, error in rejected),
        )
        for outcome, count in asdict(outcomes).items():
            if count:
                metrics.events_applied[outcome].inc(count)
        partition.unsaved.positions[tp.topic] = records[-1].offset + 1
        return changes

    def _route(self, number: int, partition: OwnedPartition, arrivals: dict[bytes, list[Arrival]]) -> None:
        """Set aside the events of users who belong to other partitions."""
        homes = {user: home_of(user, self._plan.partitions) for user in arrivals}
        for user in [user for user, home in homes.items() if home != number]:
            partition.unsaved.routed += [(arrival.source, homes[user]) for arrival in arrivals.pop(user)]

    def _histories(self, partition: OwnedPartition, users: Iterable[bytes]) -> dict[bytes, History]:
        values: dict[bytes, bytes | None] = {user: partition.unsaved_history(user) for user in users}
        stored = [user for user, value in values.items() if value is None]
        values.update(zip(stored, partition.store.get_many(stored), strict=True))
        return {user: EMPTY if value is None else codec.decode(value) for user, value in values.items()}

    def _note(self, user: bytes, before_ms: int, change: Change) -> None:
        times_ms = [event.time_ms for event in change.new]
        self._signals.user(user, before_ms, times_ms, len(change.history.items), change.kinds)

    def _send_refreshes(self, changes: Iterable[_Changed]) -> None:
        """All of a turn in one go: within the producer's linger they leave in one request, not in one per partition,
        and reach the scorer by one fetch."""
        for number, changed in groupby(changes, attrgetter("partition")):
            self._send(number, ((user, _refresh(change, history)) for _, user, change, history in changed))

    def _send(self, number: int, refreshes: Iterable[tuple[bytes, Refresh]]) -> None:
        encoded = [(user, refresh.encode()) for user, refresh in refreshes]
        self._refreshes += self._refresh_producer.send_all(self._plan.refreshes, number, encoded)

    def _rescore(self) -> None:
        """When another model went live, send stored histories again, at a bounded rate and after the turn's events."""
        now = time.monotonic()
        # A model that goes live while partitions are on their way waits for them, or their users would be left out.
        if now >= self._slots_due and self._owned and not self._restorer:
            self._slots_due = now + _SLOTS_SECONDS
            self._slots.poll()
            live = self._slots.live
            if live is not None and live.version != self._live:
                self._live = live.version
                stores = {number: partition.store for number, partition in self._owned.items()}
                self._walk = RescoringWalk(live.version, stores, self._newest_ms, self._config.rescoring)
        if self._walk is None:
            return
        owned = self._owned
        for number, user, stored in self._walk.due({n: partition.store for n, partition in owned.items()}):
            history = owned[number].unsaved_history(user) or stored
            if history is not stored and not codec.decode(history).items:
                continue  # forgotten since the last checkpoint: no list may follow the tombstone
            self._send(number, [(user, Refresh("model", self._clock_ms(), (), codec.for_reading(history)))])
        if self._walk.finished:
            log.info("model %s: %d active users are scored again", self._walk.version, self._walk.users)
            self._walk = None

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Make everything merged so far durable, now."""
        self._finish_checkpoint()
        self._under_way = self._checkpoint()
        self._finish_checkpoint()

    def _finish_checkpoint(self) -> None:
        while self._under_way is not None:
            self._advance_checkpoint()

    def _advance_checkpoint(self) -> None:
        if self._under_way is not None and next(self._under_way, "done") == "done":
            self._under_way = None
            self._report()

    def _checkpoint(self) -> Generator[None]:
        """One checkpoint in the order argued at the top of this file, by steps."""
        self._checkpoint_due = time.monotonic() + self._config.checkpoint_seconds
        # The generation that these events were merged in: the broker refuses it once there is another.
        group = self._consumer.group_metadata()
        moved = {n: p for n, p in self._owned.items() if p.moved}
        if moved and (group.generation_id < 0 or self._moves.noted):
            # Between two generations. The broker takes offsets without a generation from anybody, so wait for ours; and
            # under a new one nothing may be committed of partitions that moved with it.
            log.info("checkpoint waits for the group")
            moved = {}
        for partition in moved.values():
            partition.set_out()
        refreshes, self._refreshes = self._refreshes, []
        yield  # they are acknowledged meanwhile
        for refresh in refreshes:
            refresh.get(timeout=30)
        if not moved:
            return
        self._crash("refreshed")
        last = yield from self._commit(moved, group)
        self._metrics.checkpoints["refused" if last is None else "committed"].inc()
        if last is None:
            for partition in moved.values():
                partition.turn_back()
            return
        self._crash("committed")
        yield
        for number, partition in moved.items():
            sent = last.get(number)
            next_offset = None if sent is None else sent.get(timeout=0).offset + 1
            now_ms = self._clock_ms()
            with self._metrics.history_write.time():
                partition.store.write(partition.leaving.histories, next_offset, now_ms)
            for arrived_ms in partition.leaving.arrivals_ms:
                self._metrics.event_to_history.observe(max(now_ms - arrived_ms, 0) / 1000)
            partition.arrive()
        self._crash("stored")

    def _report(self, last: bool = False) -> None:
        """Tell the monitor and the metrics what was noted since the last checkpoint."""
        metrics = self._metrics
        self._signals.flush()
        self._windows.send(self._signals.windows, now=last)
        metrics.restoring_partitions.set(len(self._starts))
        newest_ms = [partition.newest_ms for partition in self._owned.values() if partition.newest_ms]
        if newest_ms:
            metrics.stream_watermark_timestamp["interactions"].set(min(newest_ms) / 1000)
        now = time.monotonic()
        if now >= self._gauges_due:
            self._gauges_due = now + _GAUGES_SECONDS
            stores = [partition.store for partition in self._owned.values()]
            metrics.state_bytes["histories"].set(sum(store.bytes_on_disk() for store in stores))
            pending = sum(store.pending_compaction_bytes() for store in stores)
            metrics.state_pending_compaction_bytes["histories"].set(pending)

    def _commit(self, moved: dict[int, OwnedPartition], group: Any) -> Generator[None, None, dict[int, Any] | None]:
        """One transaction; returns the last history's future by partition, or None when the broker refused it.

        A refusal (the group moved on, or the broker was away too long) aborts: nothing of it is visible, what is
        still owned afterwards is sent again by the next checkpoint. A fenced producer raises.
        """
        producer, plan = self._producer, self._plan
        last = {}
        histories = [(n, record) for n, p in moved.items() for record in p.leaving.histories.items()]
        step = max(len(histories) // _STEPS, _STEP_RECORDS)
        offsets = {
            TopicPartition(topic, number): OffsetAndMetadata(position, "", -1)
            for number, partition in moved.items()
            for topic, position in partition.leaving.positions.items()
        }
        producer.begin_transaction()
        try:
            for start in range(0, len(histories), step):
                for number, part in groupby(histories[start : start + step], itemgetter(0)):
                    last[number] = producer.send_all(plan.histories, number, (record for _, record in part))[-1]
                self._crash("sending")
                yield
            for partition in moved.values():
                for record, error in partition.leaving.dead:
                    letter = dead_letter(record, error, "updater", plan.message_bytes)
                    producer.send(plan.dead_letters, **letter)
                for record, home in partition.leaving.routed:
                    producer.send(plan.routed, **routed_record(record, home))
            producer.send_offsets_to_transaction(offsets, group)
            self._crash("produced")
            producer.commit_transaction()
        except KafkaError as error:
            log.warning("checkpoint refused, trying again: %s", error)
            producer.abort_transaction()
            if isinstance(error, CommitFailedError):
                self._bear_refusal((group.member_id, group.generation_id), error)
            return None
        return last

    def _bear_refusal(self, membership: tuple[str, int], error: CommitFailedError) -> None:
        """A refused member or generation is replaced within moments, because heartbeats are refused too. Where it is
        not, they have stopped (`stream.clients.member` prevents the one way we know): kafka-python then reads on for a
        group that forgot it, and never joins again. Give up after a session: a successor joins, and replays what was
        not committed."""
        now = time.monotonic()
        if self._refused is None or self._refused[0] != membership:
            self._refused = membership, now
        elif now - self._refused[1] > self._config.session_seconds:
            raise error


def run_updater(
    config: UpdaterConfig, connection: KafkaConnection, plan: TopicPlan, metrics: UpdaterMetrics, stop: threading.Event
) -> None:
    """Run one updater until `stop`. Raises what made it give up; restart it, its successor continues."""
    updater = Updater(config, connection, plan, metrics)
    tune_gc()
    updater.run(stop)
