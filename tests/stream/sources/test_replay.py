"""A replay keeps the order and the pace of its log, delivers everything, and continues where it stopped."""

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.partitioner.default import murmur2
from rich.console import Console

from stream.clients.connection import KafkaConnection
from stream.sources.log.options import LogOptions
from stream.sources.log.reader import read_log
from stream.sources.outbox import InteractionSink, Outbox, Pacer, SourceConfig, SourceError, as_record
from stream.sources.replay import replay, replay_file, resume_at
from stream.sources.replay_progress import Delivered, ProgressFile, source_identity
from stream.wire.records import Interaction, Limits, decode_interaction
from stream.wire.topics import TopicPlan, ensure_topics

START_MS = 1_700_000_000_000


class Log:
    """Events of two users, one every `gap_ms`."""

    def __init__(self, count: int, gap_ms: int = 1000) -> None:
        self._events = [
            Interaction(("ann", "bob")[number % 2], f"i{number}", START_MS + gap_ms * number) for number in range(count)
        ]

    def __len__(self) -> int:
        return len(self._events)

    def interactions(self, start: int = 0) -> Iterator[Interaction]:
        yield from self._events[start:]


def log_of(count: int, gap_ms: int = 1000) -> Log:
    return Log(count, gap_ms)


class Wire:
    """Stands in for a producer: takes records and acknowledges them when told, or from `refuse` on never."""

    def __init__(self, refuse: int | None = None) -> None:
        self.taken: list[tuple[bytes | None, bytes | None]] = []
        self.refuse = refuse

    def __call__(self, key: bytes | None, value: bytes | None) -> "Wire.Ticket":
        self.taken.append((key, value))
        return Wire.Ticket(self.refuse is not None and len(self.taken) > self.refuse)

    class Ticket:
        is_done = True

        def __init__(self, refused: bool) -> None:
            self.refused = refused

        def get(self, timeout: float | None = None) -> None:
            if self.refused:
                raise KafkaTimeoutError("nobody there")


class SteppedClock(threading.Event):
    """A clock that only waiting moves; also the stop event that is waited on."""

    def __init__(self, stop_at: float = float("inf")) -> None:
        super().__init__()
        self.now, self.stop_at = 100.0, stop_at

    def __call__(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        if self.now - 100.0 >= self.stop_at:
            self.set()
        return self.is_set()


def test_every_event_in_order_as_the_updater_accepts_it() -> None:
    wire, events = Wire(), log_of(1000)
    result = replay(events, wire, threading.Event())
    assert result.complete and (result.sent, result.delivered) == (1000, 1000)
    found = [decode_interaction(key, value, START_MS + 10**9, Limits()) for key, value in wire.taken]
    assert found == list(events.interactions())


def test_the_pace_is_a_multiple_of_real_time() -> None:
    clock, moments = SteppedClock(), []
    replay(log_of(5), Wire(), clock, speed=4.0, clock=clock, on_event=lambda event: moments.append(clock.now - 100.0))
    assert moments == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])


def test_a_stopped_replay_continues_where_it_stopped(tmp_path: Path) -> None:
    events, first, second = log_of(100), Wire(), Wire()
    stop = SteppedClock(stop_at=30.5)
    result = replay(events, first, stop, speed=1.0, clock=stop, progress=ProgressFile(tmp_path, "file", "topic"))
    assert not result.complete and result.delivered == 31
    delivered: list[int] = []
    progress = ProgressFile(tmp_path, "file", "topic")
    again = replay(
        events,
        second,
        threading.Event(),
        start=resume_at(events, progress, read_alike=False),
        progress=progress,
        on_delivered=delivered.append,
    )
    assert again.complete and again.started_at == 31 and delivered[-1] == 100
    assert first.taken + second.taken == [as_record(event) for event in events.interactions()]


def test_what_was_not_acknowledged_is_sent_again(tmp_path: Path) -> None:
    events, broken, mended = log_of(1000), Wire(refuse=600), Wire()
    with pytest.raises(SourceError, match="record 601 of"):
        replay(events, broken, threading.Event(), progress=ProgressFile(tmp_path, "file", "topic"))
    start = resume_at(events, ProgressFile(tmp_path, "file", "topic"), read_alike=False)
    result = replay(events, mended, threading.Event(), start=start)
    assert result.started_at == 600 and len(mended.taken) == 400


def test_progress_belongs_to_one_file_and_one_topic(tmp_path: Path) -> None:
    replay(log_of(10), Wire(), threading.Event(), progress=ProgressFile(tmp_path, "file", "topic"))
    assert ProgressFile(tmp_path, "file", "topic").read() == Delivered(10, START_MS + 9000)
    assert ProgressFile(tmp_path, "file", "other topic").read().events == 0
    assert ProgressFile(tmp_path, "other file", "topic").read().events == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_unreadable_progress_means_the_beginning(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path, "file", "topic")
    progress.write(7, START_MS)
    progress.path.write_bytes(b"half a rec")
    assert progress.read().events == 0


def test_a_log_that_is_read_otherwise_now_begins_again(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path, "file", "topic")
    replay(log_of(10), Wire(), threading.Event(), progress=progress)
    assert resume_at(log_of(12), progress, read_alike=False) == 10
    assert resume_at(log_of(12, gap_ms=500), progress, read_alike=False) == 0
    assert resume_at(log_of(5), progress, read_alike=False) == 0


def test_progress_of_the_release_before_counts_where_it_read_the_log_alike(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,timestamp\n" + "".join(f"ann,i{n},{START_MS + n}\n" for n in range(10)))
    # Both as that release wrote them.
    digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    identity = f"log.csv {digest} columns={{'item': 'item'}} min_rating=None"
    assert source_identity(path, LogOptions(item="item")) == identity
    progress = ProgressFile(tmp_path, identity, "topic")
    written = {"source": identity, "topic": "topic", "delivered": 7}
    progress.path.write_text(json.dumps(written))
    with read_log(path) as events:
        assert resume_at(events, progress, events.account.read_alike_before) == 7
    path.write_text("user,item,timestamp\nann,i,2020-01-01 00:00:00 UTC\n")  # of which it read nothing
    with read_log(path) as events:
        assert resume_at(events, progress, events.account.read_alike_before) == 0
    assert source_identity(path, LogOptions(time_zone="Europe/Berlin")) != source_identity(path, LogOptions())


def test_no_more_than_allowed_is_on_its_way() -> None:
    class Slow(Wire.Ticket):
        is_done = False
        waiting = most = 0

        def __init__(self) -> None:
            Slow.waiting += 1
            Slow.most = max(Slow.most, Slow.waiting)

        def get(self, timeout: float | None = None) -> None:
            if not self.is_done:
                self.is_done = True
                Slow.waiting -= 1

    outbox = Outbox(lambda key, value: Slow(), SourceConfig(in_flight=8))
    for _ in range(50):
        outbox.send(b"k", b"v")
    outbox.drain()
    assert Slow.most == 8 and outbox.delivered == 50


def test_a_stopped_source_does_not_wait_for_a_broker_that_is_gone(tmp_path: Path) -> None:
    stop = threading.Event()

    class Silent:
        is_done = False

        def get(self, timeout: float | None = None) -> None:
            stop.set()
            raise KafkaTimeoutError("nobody there")

    progress = ProgressFile(tmp_path, "file", "topic")
    config = SourceConfig(in_flight=5, delivery_seconds=1e9, stop_seconds=1e-9)
    with pytest.raises(SourceError, match="record 1 of 5 sent"):
        replay(log_of(10), lambda key, value: Silent(), stop, progress=progress, config=config)
    assert progress.read().events == 0


def test_waiting_ends_when_stopped() -> None:
    stop = SteppedClock(stop_at=2.0)
    looked: list[float] = []
    assert not Pacer(stop, stop).wait(3600.0, lambda: looked.append(stop.now))
    assert len(looked) == 8


@pytest.mark.kafka
def test_a_file_reaches_kafka_once_and_where_java_clients_would_put_it(
    tmp_path: Path, kafka: KafkaConnection, plan: TopicPlan
) -> None:
    ensure_topics(kafka, plan)
    path = tmp_path / "log.csv"
    rows = [f"user {n % 7},item {n},{START_MS + n}" for n in range(500)]
    path.write_text("user,item,timestamp\n" + "\n".join(rows))
    console = Console(quiet=True)

    def run(restart: bool = False) -> int:
        return replay_file(
            path,
            kafka,
            plan.interactions,
            threading.Event(),
            progress_dir=tmp_path / "progress",
            restart=restart,
            console=console,
        ).sent

    assert [run(), run(), run(restart=True)] == [500, 0, 500]
    consumer = KafkaConsumer(**kafka.kafka_python(), auto_offset_reset="earliest")
    partitions = [TopicPartition(plan.interactions, p) for p in range(plan.partitions)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    records: list = []
    while any(consumer.position(tp) < end for tp, end in ends.items()):
        for batch in consumer.poll(timeout_ms=200).values():
            records += batch
    consumer.close()
    assert len(records) == 1000
    for record in records:
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % plan.partitions
        decode_interaction(record.key, record.value, record.timestamp, Limits())


@pytest.mark.kafka
def test_a_missing_topic_is_said_clearly(kafka: KafkaConnection) -> None:
    with pytest.raises(SourceError, match="no-such-topic"):
        InteractionSink(kafka, "no-such-topic")
