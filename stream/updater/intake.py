"""Merges the consumed records of one partition into what its task holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kafka.consumer.fetcher import ConsumerRecord

from ops.metrics import UpdaterMetrics
from ops.monitor.signals import UpdaterSignals
from state import codec
from state.history import EMPTY, History
from stream.updater.config import UpdaterConfig
from stream.updater.merging import Arrival, Changed, Outcomes, apply, decode_batch
from stream.updater.partition import PartitionTask
from stream.updater.refusal_log import RefusalLog
from stream.updater.registry_wait import RegistryWait
from stream.updater.routing import sampled_misplaced
from stream.wire.partitioning import home_of
from stream.wire.records import Forget
from stream.wire.topics import TopicPlan

__all__ = ["Intake"]


class Intake:
    """Merges records, collects dead letters and misplaced events, and counts all records for metrics and monitor."""

    def __init__(
        self,
        config: UpdaterConfig,
        plan: TopicPlan,
        strict: bool,  # events of users who belong to other partitions are sent there
        metrics: UpdaterMetrics,
        signals: UpdaterSignals,
    ) -> None:
        self._config, self._plan, self._strict = config, plan, strict
        self._metrics, self._signals = metrics, signals
        self.refusals = RefusalLog()
        self.registry = RegistryWait()
        self.newest_ms = 0  # event time, over all partitions

    def merge(self, task: PartitionTask, topic: str, records: Sequence[ConsumerRecord]) -> list[Changed]:
        """Merge records of one topic, in order of offset; returns the users whose histories changed. Raises
        `RegistryUnavailable`, and then nothing was merged."""
        metrics, unsaved = self._metrics, task.unsaved
        # Decode before anything is changed: this line raises `RegistryUnavailable`, and the records are read again.
        arrivals, rejected = decode_batch(records, self._config.limits, self._config.input.translator)
        metrics.events_consumed["interactions"].inc(len(records))
        misplaced = sampled_misplaced(records, self._plan.partitions)
        if misplaced:
            metrics.foreign_partition.inc(misplaced)
        self.refusals.note(len(records), rejected)
        for record, error in rejected:
            metrics.dead_letters[error.reason].inc()
            unsaved.dead.append((record, error))
        if topic == self._plan.interactions:
            self._forget_elsewhere(task, arrivals)
        if self._strict:
            self._set_aside(task, arrivals)
        before = _histories(task, arrivals)
        outcomes = Outcomes()
        changes: list[Changed] = []
        for user, events in arrivals.items():
            came_first_here = topic == self._plan.interactions
            change = apply(before[user], events, self._config.history_items, outcomes, came_first_here)
            if change is not None:
                value = codec.encode(change.history)
                unsaved.histories[user] = value
                unsaved.arrivals_ms.append(change.arrived_ms)
                changes.append(Changed(task.number, user, change, value))
                times_ms = [event.time_ms for event in change.new]
                before_ms = 0 if change.forgotten else before[user].newest_ms
                self._signals.user(user, before_ms, times_ms, len(change.history.items), change.kinds)
                task.newest_ms = max(task.newest_ms, change.history.newest_ms)
        self.newest_ms = max(self.newest_ms, task.newest_ms)
        self._signals.feed(
            self.newest_ms,
            duplicates=outcomes.duplicate,
            late=outcomes.late,
            dead_letters=len(rejected),
            misdated=sum(error.reason == "timestamp" for _, error in rejected),
        )
        metrics.events_applied["applied"].inc(outcomes.applied)
        metrics.events_applied["duplicate"].inc(outcomes.duplicate)
        metrics.events_applied["late"].inc(outcomes.late)
        unsaved.positions[topic] = records[-1].offset + 1
        return changes

    def _set_aside(self, task: PartitionTask, arrivals: dict[bytes, list[Arrival]]) -> None:
        """Take out the events of users who belong to other partitions, to be routed there. Requests to forget a user
        stay: they are for every partition."""
        homes = {user: home_of(user, self._plan.partitions) for user in arrivals}
        for user in [user for user, home in homes.items() if home != task.number]:
            events = arrivals.pop(user)
            forgets = [arrival for arrival in events if isinstance(arrival.record, Forget)]
            if forgets:
                arrivals[user] = forgets
            task.unsaved.routed += [(arrival.source, homes[user]) for arrival in events if arrival not in forgets]

    def _forget_elsewhere(self, task: PartitionTask, arrivals: dict[bytes, list[Arrival]]) -> None:
        """Route every request to forget a user to all other partitions, too."""
        others = [number for number in range(self._plan.partitions) if number != task.number]
        for events in arrivals.values():
            for arrival in events:
                if isinstance(arrival.record, Forget):
                    task.unsaved.routed += [(arrival.source, number) for number in others]


def _histories(task: PartitionTask, users: Iterable[bytes]) -> dict[bytes, History]:
    values: dict[bytes, bytes | None] = {user: task.unsaved_history(user) for user in users}
    stored = [user for user, value in values.items() if value is None]
    values.update(zip(stored, task.store.get_many(stored), strict=True))
    return {user: EMPTY if value is None else codec.decode(value) for user, value in values.items()}
