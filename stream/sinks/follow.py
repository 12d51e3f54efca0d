"""The loop of a sink: it reads its share of `recommendations` from the positions that are stored in the sink.

Several sinks share the partitions through a consumer group. The group commits no offsets: a partition's position is
stored in the sink, together with the lists; `stream.sinks.redis_sink` says why no list is lost.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence

import msgspec
import redis
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from ops.metrics import SinkMetrics
from stream.clients.admin import admin_client, offset_range, topic_identity
from stream.clients.connection import KafkaConnection
from stream.clients.member import GroupMember
from stream.health import Health
from stream.sinks.config import SinkConfig
from stream.sinks.redis_sink import Entry, Position, RedisSink
from stream.wire.layout import agreed_layout
from stream.wire.newest import erased_until_ms
from stream.wire.partitioning import home_of
from stream.wire.records import Recommendation
from stream.wire.topics import TopicPlan, ensure_topics

__all__ = ["Sink", "run_sink"]

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_RETRY_SECONDS = 0.5  # between two attempts to reach Redis
_REPORT_SECONDS = 30.0

_recommendation = msgspec.json.Decoder(Recommendation)


class Sink:
    """One process of the sink's group."""

    def __init__(
        self,
        config: SinkConfig,
        connection: KafkaConnection,
        plan: TopicPlan,
        target: RedisSink,
        metrics: SinkMetrics,
    ) -> None:
        self._plan, self._target, self._metrics = plan, target, metrics
        ensure_topics(connection, plan)
        # Only `freshet repartition` writes deletions that forget no user, and it makes the layout strict.
        self._moved = agreed_layout(connection, plan).routing == "strict"
        self._admin = admin_client(connection)
        self._topic_id = topic_identity(self._admin, plan.recommendations)["topic_id"]
        self._positions: dict[TopicPartition, Position | None] = {}  # of the assigned partitions
        self._lost: set[TopicPartition] = set()  # assigned, and their position must be read from the sink first
        self._written = self._refused = 0
        self._silent = ""  # why Redis does not answer
        self._report_at = time.monotonic() + _REPORT_SECONDS
        self._member = GroupMember(
            connection,
            plan.prefix + config.group,
            plan.recommendations,
            session_seconds=config.session_seconds,
            poll_records=config.batch_records,
            fetch_bytes=1024 * 1024,
            name="freshet-sink",
        )

    def run(self, stop: threading.Event, health: Health) -> None:
        """Work until `stop`."""
        try:
            while not stop.is_set():
                self.turn(stop)
                health.turned(self._waits_for)
        finally:
            self._member.close()
            self._admin.close()
            self._target.close()

    @property
    def _waits_for(self) -> str:
        """Why this sink cannot work now; empty if it can, or if it has no partitions."""
        if self._silent or self._member.generation is None:
            return self._silent or "the group has not shared out its partitions"
        lost = ", ".join(str(number) for number in sorted(tp.partition for tp in self._lost))
        return f"the position is looked for: partitions {lost}" if lost else ""

    def turn(self, stop: threading.Event) -> None:
        polled = self._member.poll(_POLL_SECONDS, enough=1)
        while self._member.moves:
            move = self._member.moves.popleft()
            self._metrics.rebalances.inc()
            for tp in move.partitions:
                self._positions.pop(tp, None)
                (self._lost.add if move.kind == "assigned" else self._lost.discard)(tp)
        try:
            for tp, records in polled.items():
                if tp in self._positions and tp not in self._lost:
                    self._take(tp, records)
            for tp in list(self._lost):
                self._find_position(tp)
            self._silent = ""
            self._metrics.progress_timestamp.set_to_current_time()
        except redis.RedisError as error:
            # The polled records are not stored. Redis may have an older state later, so all positions are read again.
            log.warning("Redis does not answer, trying again: %s: %s", type(error).__name__, error)
            self._lost |= self._positions.keys()
            self._silent = f"Redis does not answer: {type(error).__name__}"
            stop.wait(_RETRY_SECONDS)
        self._metrics.sink_partitions["lost"].set(len(self._lost))
        self._metrics.sink_partitions["following"].set(len(self._positions.keys() - self._lost))
        self._report()

    def _take(self, tp: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        entries: dict[bytes, Entry] = {}
        for record in records:
            if record.key is not None and (entry := self._entry(record)) is not None:
                entries[record.key] = entry
        after = records[-1].offset + 1
        found = self._target.write(tp.partition, self._positions[tp], entries, self._topic_id, after)
        if found is None:
            log.warning("partition %d is written by somebody else as well: looking where it is", tp.partition)
            self._lost.add(tp)
            return
        self._positions[tp] = found
        self._written += len(entries)
        deletions = sum(entry.value is None for entry in entries.values())
        self._metrics.sink_records["deletion"].inc(deletions)
        self._metrics.sink_records["list"].inc(len(entries) - deletions)

    def _entry(self, record: ConsumerRecord) -> Entry | None:
        """A deletion, or a list whose user is the record's key; None for any other record, which is not written."""
        if record.value is None:
            at_home = not self._moved or record.partition == home_of(record.key, self._plan.partitions)
            return Entry(None, erased_until_ms(record, at_home))
        try:
            found = _recommendation.decode(record.value)
            if found.user.encode() == record.key:
                return Entry(record.value, found.as_of)
            why = "it is of somebody else"
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            why = str(error)
        self._refused += 1
        self._metrics.sink_records["refused"].inc()
        log.error("%s/%d at %d is no list and is left out: %s", record.topic, record.partition, record.offset, why)
        return None

    def _find_position(self, tp: TopicPartition) -> None:
        """Continue from the position in the sink; if it is unusable, empty the partition there and begin again."""
        low, end = offset_range(self._admin, tp)
        position = self._target.position(tp.partition)
        why = self._useless(position, low, end)
        if why:
            log.warning("partition %d is written again from its beginning: %s", tp.partition, why)
            self._target.empty(tp.partition, self._plan.partitions)
            position = None
        offset = low if position is None else position.next_offset
        self._member.start(tp, offset)
        self._positions[tp] = position
        self._lost.discard(tp)
        log.info("partition %d goes on at %d of %d", tp.partition, offset, end)

    def _useless(self, position: Position | None, low: int, end: int) -> str:
        if position is None:
            return "nothing of it is known in there"
        if position.topic_id != self._topic_id:
            return "it is of another topic"
        if not low <= position.next_offset <= end:
            return f"its position {position.next_offset} is not between {low} and {end}"
        if time.time() * 1000 - position.written_ms > self._plan.tombstone_ms and position.next_offset < end:
            return "it is older than the topic's deletions are kept"
        return ""

    def _report(self) -> None:
        if time.monotonic() >= self._report_at:
            self._report_at = time.monotonic() + _REPORT_SECONDS
            log.info("%d lists and deletions written, %d refused", self._written, self._refused)


def run_sink(
    config: SinkConfig,
    connection: KafkaConnection,
    plan: TopicPlan,
    environment: Mapping[str, str],
    metrics: SinkMetrics,
    stop: threading.Event,
    health: Health,
) -> None:
    """Copy lists until `stop`."""
    target = RedisSink(config, plan.prefix, environment.get("FRESHET_REDIS_PASSWORD"))
    Sink(config, connection, plan, target, metrics).run(stop, health)
