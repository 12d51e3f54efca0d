"""Checkpoints: they make durable what an updater has merged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from kafka import TopicPartition
from kafka.errors import CommitFailedError, KafkaError
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from ops.metrics import UpdaterMetrics
from stream.clients.bulk_producer import bulk_producer, close_producer, was_fenced
from stream.clients.connection import KafkaConnection
from stream.clients.member import GroupMember
from stream.clients.names import folder_name
from stream.updater.config import UpdaterConfig
from stream.updater.partition import PartitionTask
from stream.updater.routing import routed_record
from stream.wire.dead_letters import dead_letter
from stream.wire.topics import TopicPlan

__all__ = ["CRASH_POINTS", "Checkpoint"]

log = logging.getLogger(__name__)

_STEPS = 8  # steps in which the histories of a checkpoint are sent: new events wait for one step, not for all
_STEP_RECORDS = 50  # least number of records of a step
_ACKNOWLEDGED_SECONDS = 30.0

# The moments between which a killed process must lose nothing; tests kill it at each. The updater's turn passes the
# first two.
CRASH_POINTS = ("polled", "merged", "refreshed", "sending", "produced", "committed", "stored")


class Checkpoint:
    """Makes everything that was merged before it durable, in steps between the turns that follow. This order of writes
    loses nothing:

    1. every refresh is acknowledged
    2. one Kafka transaction commits changed histories, dead letters, routed events and consumed offsets; their metadata
       says how many users have been sent to the scorer again for a new model (`stream.updater.cursor`)
    3. RocksDB stores the same histories with the changelog offset they reach

    A crash before 2 replays the events: the stores do not hold them yet, so the merge finds them new and sends
    everything again. A crash between 2 and 3 leaves the stores behind the changelog, and restoring closes the gap.
    If RocksDB came first, a crash before 2 would lose events: on replay the merge would find nothing new and send
    nothing, and the offsets would then be committed.

    Events that arrive while a checkpoint is under way are merged into the histories that the checkpoint carries, not
    into the older ones in RocksDB, and belong to the next checkpoint. A refused checkpoint is aborted: nothing of it is
    visible, and the next checkpoint writes its content, too. Partitions move only between checkpoints.

    A worker that lost its partitions cannot overwrite newer histories: the transaction carries its group generation,
    and the broker refuses a stale one. A producer that was fenced raises.
    """

    def __init__(
        self,
        config: UpdaterConfig,
        connection: KafkaConnection,
        plan: TopicPlan,
        metrics: UpdaterMetrics,
        clock_ms: Callable[[], int],
        crash: Callable[[str], None],
    ) -> None:
        self._config, self._plan, self._metrics = config, plan, metrics
        self._clock_ms, self._crash = clock_ms, crash
        self._steps: Iterator[None] | None = None  # of the checkpoint under way
        self._due = time.monotonic() + config.checkpoint_seconds
        self._refused_since: tuple[tuple[str, int], float] | None = None  # refused membership, since when
        transaction_ms = int(config.transaction_seconds * 1000)
        self._producer = bulk_producer(
            connection,
            plan.message_bytes,
            linger_ms=5,
            request_timeout_ms=min(10_000, transaction_ms // 2),
            delivery_timeout_ms=transaction_ms,
            transactional_id=f"{plan.prefix}{config.group}-{config.worker or folder_name(config.state_dir)}",
            transaction_timeout_ms=transaction_ms,
        )
        # Aborts the transaction that a killed predecessor of this name left open, and fences it if it still runs.
        self._producer.init_transactions()

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._due

    @property
    def under_way(self) -> bool:
        return self._steps is not None

    def begin(self, tasks: Sequence[PartitionTask], refreshes: Sequence[Any], member: GroupMember) -> bool:
        """Begin a checkpoint of what the tasks have merged. `refreshes` are the futures of all refreshes sent for it.

        If the checkpoint before is still under way, finish that first. Returns whether there was one to finish.
        """
        ended = self.finish()
        self._due = time.monotonic() + self._config.checkpoint_seconds
        self._steps = self._write(tasks, refreshes, member)
        self.step()
        return ended

    def step(self) -> bool:
        """Do a step of the checkpoint under way, if there is one; returns whether that was the last."""
        if self._steps is None or next(self._steps, "ended") != "ended":
            return False
        self._steps = None
        return True

    def finish(self) -> bool:
        """Do all remaining steps of the checkpoint under way; returns whether there was one."""
        ended = False
        while self._steps is not None:
            ended = self.step()
        return ended

    def _write(
        self, tasks: Sequence[PartitionTask], refreshes: Sequence[Any], member: GroupMember
    ) -> Generator[None, None, None]:
        carried = [task for task in tasks if task.has_unsaved]
        # These events were merged in this generation of the group: the broker refuses it once there is a newer one.
        group = member.metadata
        if carried and member.between_generations:
            log.info("checkpoint waits for the group")
            carried = []
        for task in carried:
            task.begin_checkpoint()
        yield  # the refreshes are acknowledged meanwhile
        for refresh in refreshes:
            refresh.get(timeout=_ACKNOWLEDGED_SECONDS)
        if not carried:
            return
        self._crash("refreshed")
        self._producer.begin_transaction()
        try:
            written = yield from self._transaction(carried, group)
        except KafkaError as error:
            self._refused(carried, group, error)
            return
        self._metrics.checkpoints["committed"].inc()
        self._crash("committed")
        yield
        for task in carried:
            self._store(task, written.get(task.number))
        self._crash("stored")

    def _transaction(
        self, carried: Sequence[PartitionTask], group: ConsumerGroupMetadata
    ) -> Generator[None, None, dict[int, Any]]:
        """Write and commit; returns the future of the last history of each partition. Raises `KafkaError`."""
        producer, plan = self._producer, self._plan
        written = {}
        histories = [(task.number, record) for task in carried for record in task.in_flight.histories.items()]
        step = max(len(histories) // _STEPS, _STEP_RECORDS)
        for start in range(0, len(histories), step):
            for number, part in groupby(histories[start : start + step], itemgetter(0)):
                written[number] = producer.send_all(plan.histories, number, (record for _, record in part))[-1]
            self._crash("sending")
            yield
        for task in carried:
            for record, error in task.in_flight.dead:
                letter = dead_letter(record, error, "updater", plan.message_bytes)
                producer.send(plan.dead_letters, **letter)
            for record, home in task.in_flight.routed:
                producer.send(plan.routed, **routed_record(record, home))
        offsets = {
            TopicPartition(topic, task.number): OffsetAndMetadata(
                position, task.in_flight.cursor.encode() if topic == plan.interactions else "", -1
            )
            for task in carried
            for topic, position in task.in_flight.positions.items()
        }
        producer.send_offsets_to_transaction(offsets, group)
        self._crash("produced")
        producer.commit_transaction()
        return written

    def _store(self, task: PartitionTask, written: Any) -> None:
        next_offset = None if written is None else written.get(timeout=0).offset + 1
        now_ms = self._clock_ms()
        with self._metrics.history_write.time():
            task.store.write(task.in_flight.histories, next_offset, now_ms)
        for arrived_ms in task.in_flight.arrivals_ms:
            self._metrics.event_to_history.observe(max(now_ms - arrived_ms, 0) / 1000)
        task.complete()

    def _refused(self, carried: Sequence[PartitionTask], group: ConsumerGroupMetadata, error: KafkaError) -> None:
        """Handle a failed transaction: the group has a newer generation, or the broker was away for too long. Raises
        the error when the producer or the group instance was fenced.

        A refused member or generation is normally replaced within moments, because heartbeats are refused, too. If it
        is not, the heartbeats have stopped (`stream.clients.member` prevents the one known cause): kafka-python then
        goes on reading for a group that no longer has this member, and never joins again. So the error is raised after
        the time of a session: a successor joins, and replays what was not committed.
        """
        self._metrics.checkpoints["refused"].inc()
        if was_fenced(error):
            raise error
        self._producer.abort_transaction()
        log.warning("checkpoint refused, trying again: %s", error)
        for task in carried:
            task.requeue()
        if isinstance(error, CommitFailedError):
            membership, now = (group.member_id, group.generation_id), time.monotonic()
            if self._refused_since is None or self._refused_since[0] != membership:
                self._refused_since = membership, now
            elif now - self._refused_since[1] > self._config.session_seconds:
                raise error

    def close(self) -> None:
        close_producer(self._producer, 3)
