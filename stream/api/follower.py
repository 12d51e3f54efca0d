"""Keeps local copies of `recommendations` and `histories` equal to their topics.

The follower runs in a thread of its own. `hold` says which partitions are wanted; their stores are opened, and reading
goes on from the offset that each store has reached, or from the beginning. Four times a second the follower asks the
brokers for the ends of the topics. Once a copy has been read up to such an end, it is known to hold everything that the
topic held when the question was sent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, OffsetOutOfRangeError

from ops.labels import ApiStore
from ops.metrics import ApiMetrics
from state.store import Store, StoreMemory
from stream.api.config import ApiConfig
from stream.api.partitions import Copies, suspended_too
from stream.api.popular import PopularItems
from stream.clients.admin import admin_client, offset_range, topic_identity
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.changelog import open_store
from stream.wire.topics import TopicPlan

__all__ = ["Follower", "FollowerError"]

log = logging.getLogger(__name__)

_ASK_SECONDS = 0.25  # between two questions for the ends of the topics
_ANSWER_SECONDS = 2.0  # longest wait for the answer
_GAUGES_SECONDS = 5.0
_POLL_SECONDS = 0.1  # longest wait for a record
# A pause after records, so that the next ones are fetched, written and announced together. Without it, at 200 events
# per second almost every record would take a request of its own, here and at the brokers.
_GATHER_SECONDS = 0.015
_FEW_RECORDS = 100  # more than these are part of a backlog, which is read without a rest
_FOLDERS: tuple[ApiStore, ...] = ("lists", "histories")


class FollowerError(RuntimeError):
    """The copies cannot be used any more; a new process rebuilds them."""


class Follower:
    """`tell` is called with the users whose lists were written, after they are in the store."""

    def __init__(
        self,
        config: ApiConfig,
        connection: KafkaConnection,
        plan: TopicPlan,
        metrics: ApiMetrics,
        copies: Copies,
        popular: PopularItems,
        tell: Callable[[Iterable[bytes]], None],
        clock_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self._plan, self._metrics, self._copies, self._popular = plan, metrics, copies, popular
        self._tell, self._clock_ms = tell, clock_ms
        self._topics = plan.recommendations, plan.histories
        self._wanted: frozenset[int] = frozenset()
        self._taken: frozenset[int] = frozenset()  # the wanted partitions that are followed already
        self._asked: dict[TopicPartition, tuple[float, int]] = {}  # time of the question, and the partition's end
        self._ask_due = 0.0
        self._gauges_due = 0.0
        self._resources = ExitStack()
        self._admin = self._resources.enter_context(admin_client(connection))
        self._stores = _Stores(config, self._admin, plan, clock_ms)
        self._reader = self._resources.enter_context(
            TopicReader(
                connection, poll_records=2_000, fetch_bytes=2 * 1024 * 1024, wait_seconds=0.25, when_lost="none"
            )
        )

    # -- called by other threads ---------------------------------------------------------------------------------------

    def hold(self, partitions: Iterable[int]) -> None:
        """From now on keep copies of these partitions and of no others."""
        self._wanted = frozenset(partitions)

    @property
    def serving(self) -> frozenset[int]:
        """Partitions of which both copies are complete."""
        level = self._copies.level()
        return frozenset(
            number for number in self._taken if all(TopicPartition(topic, number) in level for topic in self._topics)
        )

    @property
    def restoring(self) -> frozenset[int]:
        return self._wanted - self.serving

    # -- the thread ----------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Work until `stop`. Raises what makes the copies unusable."""
        try:
            while not stop.is_set():
                self.turn()
        finally:
            self._copies.close()
            self._resources.close()

    def turn(self) -> None:
        """Follow the wanted partitions, take in new records, and check which copies are complete."""
        if self._taken != self._wanted:
            self._change(self._wanted)
        if self._taken:
            try:
                polled = self._reader.poll(_POLL_SECONDS)
            except OffsetOutOfRangeError as error:
                raise FollowerError(f"records were removed before they were read: {error}") from error
            for tp, records in polled.items():
                self._take(tp, records)
            self._confirm()
            self._popular.turn()
            if 0 < sum(map(len, polled.values())) < _FEW_RECORDS:
                time.sleep(_GATHER_SECONDS)
        else:
            time.sleep(_POLL_SECONDS)
        self._report()

    def _change(self, wanted: frozenset[int]) -> None:
        for number in self._taken - wanted:
            self._drop(number)
            log.info("partition %d is let go", number)
        for number in sorted(wanted - self._taken):
            try:
                for topic in self._topics:
                    tp = TopicPartition(topic, number)
                    store, offset = self._stores.open(tp)
                    self._copies.add(tp, store)
                    self._reader.assign(self._copies.held())
                    self._reader.seek(tp, offset)
                    if topic == self._plan.histories:
                        self._popular.partition_came(tp, store)
            except KafkaError as error:
                log.warning("partition %d waits: %s: %s", number, type(error).__name__, error)
                self._drop(number)
                time.sleep(1.0)
                break
            self._taken |= {number}
        self._ask_due = 0.0

    def _drop(self, number: int) -> None:
        for topic in self._topics:
            tp = TopicPartition(topic, number)
            self._popular.partition_went(tp)
            self._copies.drop(tp)
            self._asked.pop(tp, None)
        self._taken -= {number}
        self._reader.assign(self._copies.held())

    def _take(self, tp: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        copies, next_offset = self._copies, records[-1].offset + 1
        values = {record.key: record.value for record in records if record.key is not None}
        if tp.topic == self._plan.histories:
            before = dict(zip(values, copies.held()[tp].get_many(list(values)), strict=True))
            copies.write(tp, values, next_offset, self._clock_ms())
            self._popular.changed(tp, before, values)
            return
        copies.write(tp, values, next_offset, self._clock_ms())
        self._tell(values)
        now_ms = self._clock_ms()
        for record in records:
            self._metrics.api_list_lag.observe(max(now_ms - record.timestamp, 0) / 1000)

    def _confirm(self) -> None:
        now, reader = suspended_too(), self._reader
        if now >= self._ask_due:
            self._ask_due = now + _ASK_SECONDS
            self._ask([tp for tp in self._copies.held() if tp not in self._asked], now)
        for tp, (asked_at, end) in list(self._asked.items()):
            if reader.position(tp) >= end:
                self._copies.confirm(tp, asked_at)
                del self._asked[tp]

    def _ask(self, partitions: list[TopicPartition], now: float) -> None:
        """Ask for the ends of these partitions. The caller leaves out those not yet read to the end found before."""
        positions = {tp: self._reader.position(tp) for tp in partitions}
        try:
            ends = self._reader.ends(partitions, _ANSWER_SECONDS)
        except KafkaError as error:  # without answers the copies soon count as too old to be shown
            log.warning("Kafka does not say where the topics end: %s: %s", type(error).__name__, error)
            return
        for tp, end in ends.items():
            if end < positions[tp]:
                raise FollowerError(f"{tp.topic}/{tp.partition} ends at {end}, {positions[tp]} were read: made anew?")
            self._asked[tp] = now, end

    def _report(self) -> None:
        behind = self._copies.behind_seconds()
        if behind * 1000 > self._plan.tombstone_ms:
            raise FollowerError(f"nothing was read for {behind:.0f} s: deletions may have been missed")
        now = time.monotonic()
        if now < self._gauges_due:
            return
        self._gauges_due = now + _GAUGES_SECONDS
        metrics = self._metrics
        metrics.progress_timestamp.set_to_current_time()
        metrics.api_partitions["serving"].set(len(self.serving))
        metrics.api_partitions["restoring"].set(len(self.restoring))
        metrics.api_behind.set(behind)
        for name, topic in zip(_FOLDERS, self._topics, strict=True):
            stores = [store for tp, store in self._copies.held().items() if tp.topic == topic]
            metrics.state_bytes[name].set(sum(store.bytes_on_disk() for store in stores))


class _Stores:
    """Opens the store of a partition, emptied when it cannot be read on from."""

    def __init__(
        self, config: ApiConfig, admin: KafkaAdminClient, plan: TopicPlan, clock_ms: Callable[[], int]
    ) -> None:
        self._admin, self._tombstone_ms, self._clock_ms = admin, plan.tombstone_ms, clock_ms
        self._memory = StoreMemory(config.store)
        topics = zip(_FOLDERS, (plan.recommendations, plan.histories), strict=True)
        self._folders = {topic: config.state_dir / folder for folder, topic in topics}
        self._identities = {topic: topic_identity(admin, topic) for topic in self._folders}

    def open(self, tp: TopicPartition) -> tuple[Store, int]:
        """The store, and the offset to read on from. Raises `KafkaError` when the brokers do not answer."""
        low, end = offset_range(self._admin, tp)
        identity = self._identities[tp.topic] | {"partition": str(tp.partition)}
        path = self._folders[tp.topic] / str(tp.partition)
        store = open_store(path, identity, self._memory, low, end, self._tombstone_ms, self._clock_ms())
        offset = low if store.next_offset is None else max(store.next_offset, low)
        log.info("%s/%d: %d records to read", *tp, end - offset)
        return store, offset
