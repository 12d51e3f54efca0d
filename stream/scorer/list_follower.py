"""Reads the lists that other scorers published: before a partition is answered, and whenever another writes into it.

Another scorer may have answered a partition before it is assigned to this one. Its refreshes wait
(`RefreshStream.hold`) until the store here holds all lists that `recommendations` held at the time of the assignment.
Only then is it known which refresh is older than the list that its user sees: an updater that was paused, and goes on,
sends histories from before the pause. Reading continues from the offset that the store has reached. So a scorer that
was only restarted reads what it published just before the restart, and a scorer that never had the partition reads all
of it.

While a partition is owned, the offsets of its lists have no gaps. A gap means that another scorer, which had lost the
partition and did not know it, wrote a list. That list is read; where it is older than the list that it superseded, the
newer list is published again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from ops.labels import ListVariant
from stream.clients.connection import KafkaConnection
from stream.scorer.list_stores import ListStores
from stream.scorer.prequential import ShownList
from stream.scorer.shown_lists import LastList, ShownLists
from stream.wire.changelog import changelog_reader
from stream.wire.history_version import HistoryVersion
from stream.wire.made import made_header
from stream.wire.records import InPilot, ScoredItem
from stream.wire.topics import TopicPlan

__all__ = ["FollowerEvents", "ListFollower"]

log = logging.getLogger(__name__)

_CHECK_SECONDS = 2.0  # between two looks for what others wrote
_REST_SECONDS = 0.2  # of a follower that has nothing to read
_POLL_SECONDS = 0.05
_LOG_SECONDS = 10.0
_RETRY_SECONDS = 1.0


class FollowerEvents(NamedTuple):
    """What the follower calls, on its own thread."""

    caught_up: Callable[[int, int], None]  # with the number of the assignment, and a partition that may be answered
    progressed: Callable[[], None]  # after something was read
    publish_again: Callable[[int, Mapping[bytes, LastList]], None]  # returns when the brokers have these lists


class ListFollower:
    """`follow` may be called from any thread; `run` is the body of the follower's own thread."""

    def __init__(
        self,
        connection: KafkaConnection,
        plan: TopicPlan,
        lists: ShownLists,
        events: FollowerEvents,
        former_seconds: float,
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._plan, self._lists, self._events, self._clock_ms = plan, lists, events, clock_ms
        self._stores = ListStores(connection, plan, lists, former_seconds, clock_ms)
        self._reader = changelog_reader(connection)
        self._assignment: tuple[int, frozenset[int]] = 0, frozenset()  # number of the assignment, its partitions
        self._followed = 0  # number of the assignment that is being followed
        self._targets: dict[TopicPartition, int] = {}  # partitions being read -> up to this offset
        self._held: set[int] = set()  # partitions that are not answered yet
        self._ends: dict[int, int] = {}  # where partitions ended at the last look
        self._woken = threading.Event()
        self._check_due = self._log_due = 0.0

    def follow(self, partitions: Iterable[int]) -> int:
        """Own these partitions, and no others, from now on; what others published of them is read first. Returns the
        number of this assignment."""
        number = self._assignment[0] + 1
        self._assignment = number, frozenset(partitions)
        self._woken.set()
        return number

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`. After a `KafkaError` it begins again with what is assigned; other errors are raised."""
        try:
            while not stop.is_set():
                try:
                    self._turn()
                except KafkaError as error:
                    log.warning("the last lists wait for Kafka: %s: %s", type(error).__name__, error)
                    self._followed = 0  # begin again with what is assigned
                    stop.wait(_RETRY_SECONDS)
        finally:
            self._reader.close()
            self._stores.close()

    def _turn(self) -> None:
        assigned = self._assignment
        if assigned[0] != self._followed:
            self._begin(*assigned)
        if self._targets:
            self._read()
        else:
            self._woken.wait(_REST_SECONDS)
        self._woken.clear()
        now = time.monotonic()
        if now >= self._check_due:
            self._check_due = now + _CHECK_SECONDS
            self._look_for_others()
            self._stores.tidy()

    def _begin(self, number: int, partitions: frozenset[int]) -> None:
        """Find out what must be read of the assigned partitions."""
        self._targets.clear()
        self._ends.clear()
        self._held = set(partitions)
        for partition in sorted(partitions):
            tp = TopicPartition(self._plan.recommendations, partition)
            self._read_to(tp, *self._stores.open(tp))
        self._stores.owned(partitions)
        self._followed = number

    def _read_to(self, tp: TopicPartition, start: int, end: int) -> None:
        if tp.partition in self._held:
            log.info("%s/%d: %d last lists to read", *tp, end - start)
        self._targets[tp] = end
        self._reader.assign(self._targets)
        self._reader.seek(tp, start)

    def _read(self) -> None:
        """Read some more of the partitions that are behind."""
        try:
            polled = self._reader.poll(_POLL_SECONDS) if self._behind() else {}
        except OffsetOutOfRangeError:
            self._reader.to_beginning()  # compaction moved the beginning; the removed records were superseded
            return
        overwritten: dict[int, dict[bytes, LastList]] = {}
        for tp, records in polled.items():
            lists = self._lists[tp.partition]
            if lists is not None:
                read = [pair for record in records if (pair := _last_list(record)) is not None]
                overwritten[tp.partition] = lists.take_in(read, self._clock_ms())
        if polled:
            self._events.progressed()
        for partition, newer in overwritten.items():
            if newer:
                # Published before the offset is stored: a scorer that is killed here reads the older lists again.
                log.warning("%d lists of partition %d stood under older ones", len(newer), partition)
                self._events.publish_again(partition, newer)
        for tp, end in list(self._targets.items()):
            position = self._reader.position(tp)
            lists = self._lists[tp.partition]
            if position >= end and lists is not None:
                lists.reached(position, self._clock_ms())
                del self._targets[tp]
                if tp.partition in self._held:
                    self._held.discard(tp.partition)
                    self._events.caught_up(self._followed, tp.partition)
        self._reader.assign(self._targets)
        self._log_what_is_left()

    def _behind(self) -> bool:
        return any(self._reader.position(tp) < end for tp, end in self._targets.items())

    def _log_what_is_left(self) -> None:
        now = time.monotonic()
        if now >= self._log_due:
            self._log_due = now + _LOG_SECONDS
            for tp, end in self._targets.items():
                log.info("%s/%d: %d last lists to read", *tp, end - self._reader.position(tp))

    def _look_for_others(self) -> None:
        """Read the lists of others. Lists before the end that the last check found are by others if the store still
        lacks them: a scorer notes its own lists within moments of their delivery."""
        owned = self._assignment[1] - self._held
        partitions = [TopicPartition(self._plan.recommendations, number) for number in owned]
        ends = self._reader.ends(partitions) if partitions else {}
        for tp, end in ends.items():
            lists, before = self._lists[tp.partition], self._ends.get(tp.partition)
            known = None if lists is None else lists.store.next_offset
            if known is not None and before is not None and known < before and tp not in self._targets:
                self._read_to(tp, known, end)
            self._ends[tp.partition] = end


def _last_list(record: Any) -> tuple[bytes, LastList] | None:
    """A record of `recommendations`; None for one that is no list of this release."""
    if record.key is None:
        return None
    version = HistoryVersion.from_headers(record.headers)
    if record.value is None:
        last = LastList.without_version(0, record.offset, b"")
    else:
        try:
            found = _list.decode(record.value)
        except msgspec.DecodeError as error:
            log.warning("%s/%d, offset %d is no list: %s", record.topic, record.partition, record.offset, error)
            return None
        items, scores = tuple(item.item for item in found.items), tuple(item.score for item in found.items)
        made = made_header(record.headers)
        shown = ShownList(found.published, found.variant, found.model, items, scores, made=made, pilot=found.pilot)
        last = LastList.without_version(found.as_of, record.offset, shown.encode())
    return record.key, last if version is None else last._replace(version=version)


class _List(msgspec.Struct):
    """What is read of a `Recommendation`."""

    items: tuple[ScoredItem, ...]
    model: str
    variant: ListVariant
    as_of: int
    published: int
    pilot: InPilot | None = None


_list = msgspec.json.Decoder(_List)
