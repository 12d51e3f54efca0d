"""Lists in a real Redis: whatever dies, it ends with every user's newest list and nothing else."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from stream.clients.connection import KafkaConnection
from stream.demo.audit import last_values
from stream.local.pipeline import free_port
from stream.sinks.config import SinkConfig, SinkConfigError
from stream.sinks.redis_sink import Entry, RedisSink
from stream.wire.layout import Layout, write_layout
from stream.wire.partitioning import home_of
from stream.wire.topics import TopicPlan
from tests.support.api import Writer, until
from tests.support.probes import probe

pytestmark = pytest.mark.timeout(200)

ROOT = Path(__file__).parents[3]


class Redis:
    """A redis-server of the test's own; its snapshot is taken when the test says so."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port)
        self.start()

    def start(self) -> None:
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder))
        self._process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        until(self._answers, "Redis answering")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def lists(self, begin: bytes) -> dict[bytes, bytes]:
        """What lies under keys that begin so, by the rest of the key."""
        keys = [key for key in self.client.scan_iter(count=1000) if key.startswith(begin)]
        return {key[len(begin) :]: cast(bytes, self.client.get(key)) for key in keys}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Redis]:
    store = Redis(tmp_path)
    yield store
    store.kill()


class SinkProcess:
    """`freshet sink` as an operator runs it."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan, url: str) -> None:
        self.port = free_port()
        command = ["sink", url, "--prefix", plan.prefix, "--partitions", str(plan.partitions)]
        command += ["--metrics-port", str(self.port)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stream.cli", *command, "--session-seconds", "6", "--batch-records", "20"],
            cwd=ROOT,
            env={**os.environ, "FRESHET_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines += (line.rstrip() for line in self.process.stdout)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        print("\n".join(self.lines[-20:]))


@pytest.fixture
def started(kafka: KafkaConnection, topics: TopicPlan, store: Redis) -> Iterator[Callable[[], SinkProcess]]:
    running: list[SinkProcess] = []

    def start() -> SinkProcess:
        running.append(SinkProcess(kafka, topics, store.url))
        return running[-1]

    yield start
    for sink in running:
        sink.end()


@pytest.fixture
def writer(kafka: KafkaConnection, topics: TopicPlan) -> Iterator[Writer]:
    writer = Writer(kafka, topics)
    yield writer
    writer.close()


def begin_of(plan: TopicPlan) -> bytes:
    return f"freshet:{plan.prefix}:rec:".encode()


def until_equal(kafka: KafkaConnection, plan: TopicPlan, store: Redis) -> None:
    expected = last_values(kafka, plan.recommendations)
    assert len(expected) > 10
    until(lambda: store.lists(begin_of(plan)) == expected, "Redis holding every newest list", 60)


def storm(writer: Writer, seconds: float) -> None:
    rng, until_then = random.Random(3), time.monotonic() + seconds
    version = 0
    while time.monotonic() < until_then:
        version += 1
        user = f"u{rng.randrange(40)}"
        if rng.random() < 0.1:
            writer.raw_list(user, None)
        else:
            writer.list_of(user, [f"i{version}"], as_of=version)


@pytest.mark.parametrize("url", ["http://x", "redis://", "redis://user:secret@host:6379/0", "nonsense"])
def test_a_url_that_cannot_be_used_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SinkConfigError) as refused:
        SinkConfig(url)
    assert "secret" not in str(refused.value)


def a_list(as_of: int, name: str = "") -> Entry:
    return Entry(json.dumps({"as_of": as_of, "name": name}).encode(), as_of)


def test_lists_and_position_are_written_together_and_only_from_the_position_on(store: Redis) -> None:
    sink = RedisSink(SinkConfig(store.url), "")
    first = sink.write(0, None, {b"ann": a_list(1), b"bob": Entry(None, 1)}, "t", 5)
    assert first is not None and first.next_offset == 5 and sink.position(0) == first
    second = sink.write(0, first, {b"ann": a_list(2)}, "t", 9)
    assert sink.write(0, first, {b"ann": a_list(3), b"cem": a_list(3)}, "t", 6) is None  # who slept meanwhile
    assert sink.write(0, None, {b"ann": a_list(3)}, "t", 6) is None
    assert store.lists(b"freshet:rec:") == {b"ann": a_list(2).value} and sink.position(0) == second
    assert sink.write(0, second, {}, "t", 12) == sink.position(0) != second
    sink.close()


@pytest.mark.parametrize(
    ("there", "comes", "left"),
    [
        (a_list(5), a_list(4), a_list(5)),
        (a_list(5, "old"), a_list(5, "again"), a_list(5, "again")),
        (a_list(5), Entry(None, 4), a_list(5)),
        (a_list(5), Entry(None, 5), None),
        (Entry(b"no list", 9), a_list(1), a_list(1)),
        (Entry(b"no list", 9), Entry(None, 0), None),
    ],
)
def test_what_is_newer_stays(store: Redis, there: Entry, comes: Entry, left: Entry | None) -> None:
    """Partitions are read in any order."""
    sink = RedisSink(SinkConfig(store.url), "")
    sink.write(0, None, {b"ann": there}, "t", 1)
    assert sink.write(1, None, {b"ann": comes}, "t", 1) is not None
    assert store.client.get("freshet:rec:ann") == (None if left is None else left.value)
    if left is not None:
        assert sink.has(b"ann", left.as_of_ms) and not sink.has(b"ann", left.as_of_ms - 1)
    assert not sink.has(b"bob", 9)
    sink.close()


def test_a_list_that_changes_under_a_batch_is_looked_at_again(store: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the transaction another sink writes the user's newer list."""
    sink, other = (RedisSink(SinkConfig(store.url), "") for _ in range(2))
    execute, meanwhile = redis.client.Pipeline.execute, [{b"ann": a_list(7)}]

    def late(self: redis.client.Pipeline, *arguments: Any, **options: Any) -> Any:
        if meanwhile:
            other.write(1, None, meanwhile.pop(), "t", 1)
        return execute(self, *arguments, **options)

    monkeypatch.setattr(redis.client.Pipeline, "execute", late)
    assert sink.write(0, None, {b"ann": a_list(6), b"bob": a_list(1)}, "t", 1) is not None
    assert store.lists(b"freshet:rec:") == {b"ann": a_list(7).value, b"bob": a_list(1).value}
    for one in (sink, other):
        one.close()


def test_a_partition_is_emptied_of_its_own_users_only(store: Redis) -> None:
    sink = RedisSink(SinkConfig(store.url, namespace="a*[b]"), "x?")
    users = [b"u%d" % n for n in range(50)]
    for partition in (0, 1):
        sink.write(partition, None, dict.fromkeys(users, a_list(1)), "t", 1)
    store.client.set("aZ[b]:x?:rec:u1", "of somebody else")
    sink.empty(1, 2)
    assert sink.position(1) is None and sink.position(0) is not None
    left = store.lists(b"a*[b]:x?:rec:")
    assert 0 < len(left) < 50 and store.client.get("aZ[b]:x?:rec:u1") == b"of somebody else"
    sink.empty(0, 2)
    assert store.lists(b"a*[b]:x?:rec:") == {}
    sink.close()


def test_a_list_may_expire(store: Redis) -> None:
    sink = RedisSink(SinkConfig(store.url, expire_seconds=100), "")
    sink.write(0, None, {b"ann": a_list(1)}, "t", 5)
    assert 0 < store.client.ttl("freshet:rec:ann") <= 100 and store.client.ttl("freshet:position:0") == -1
    sink.close()


@pytest.mark.kafka
def test_a_deletion_of_another_partition_takes_no_newer_list(
    kafka: KafkaConnection, topics: TopicPlan, store: Redis, writer: Writer, started: Callable[[], SinkProcess]
) -> None:
    """Somebody was forgotten everywhere, and came back before every partition had been answered."""
    assert topics.partitions > 1
    write_layout(kafka, topics.layout, Layout(topics.partitions, "strict"))
    forgotten = [("history", b"100 0 0")]
    writer.list_of("ann", ["after"], as_of=101)
    writer.list_of("bob", ["before"], as_of=100)
    writer.list_of("cem", ["moved"], as_of=50)
    writer.list_of("eve", ["gone"], as_of=50)
    started()
    until(lambda: len(store.lists(begin_of(topics))) == 4, "the lists")
    writer.raw_list("ann", None, away=1, headers=forgotten)
    writer.raw_list("bob", None, away=1, headers=forgotten)
    writer.raw_list("cem", None, away=1, headers=[("moved", b"")])
    writer.raw_list("cem", None, away=1)  # as earlier releases moved
    writer.raw_list("eve", None)  # by another hand
    last = {f"last{n}" for n in range(20)}
    assert {home_of(user.encode(), topics.partitions) for user in last} == set(range(topics.partitions))
    for user in last:
        writer.list_of(user, ["tea"])
    until(lambda: {user.encode() for user in last} <= store.lists(begin_of(topics)).keys(), "the end of each partition")
    assert store.lists(begin_of(topics)).keys() - {user.encode() for user in last} == {b"ann", b"cem"}


@pytest.mark.kafka
def test_where_nobody_was_moved_a_deletion_without_a_version_erases_wherever_it_lies(
    kafka: KafkaConnection, topics: TopicPlan, store: Redis, writer: Writer, started: Callable[[], SinkProcess]
) -> None:
    """The first release wrote none, and producers partition as they like."""
    writer.list_of("ann", ["tea"])
    started()
    until(lambda: store.lists(begin_of(topics)), "the list")
    writer.raw_list("ann", None, away=1)
    until(lambda: not store.lists(begin_of(topics)), "the deletion")


@pytest.mark.kafka
def test_every_newest_list_is_there_and_a_forgotten_users_is_not(
    kafka: KafkaConnection, topics: TopicPlan, store: Redis, writer: Writer, started: Callable[[], SinkProcess]
) -> None:
    for n in range(30):
        writer.list_of(f"u{n}", ["old"])
        writer.list_of(f"u{n}", ["new"])
    writer.raw_list("u7", b"no list")
    of_u1 = {"user": "u1", "items": [], "model": "v", "variant": "control", "as_of": 1, "reason": "event"}
    writer.raw_list("mallory", json.dumps(of_u1 | {"published": 1}).encode())
    sink = started()
    key = begin_of(topics) + b"u1"
    found: Any = until(lambda: store.client.get(key), "a list")
    assert json.loads(found)["items"][0]["item"] == "new"
    until(lambda: len(store.lists(begin_of(topics))) == 30, "all lists")
    assert json.loads(store.client.get(begin_of(topics) + b"u7") or b"")["items"][0]["item"] == "new"
    writer.raw_list("u1", None)
    until(lambda: store.client.get(key) is None, "forgetting")
    assert [probe(sink.port, path) for path in ("/healthz", "/readyz")] == ["", ""]
    store.client.save()  # what Redis comes back with
    store.kill()
    writer.list_of("u1", ["missed"])
    until(lambda: probe(sink.port, "/readyz").startswith("Redis does not answer"), "not being ready without Redis")
    assert probe(sink.port, "/healthz") == ""
    store.start()
    until(lambda: probe(sink.port, "/readyz") == "" and store.client.get(key) is not None, "being ready again", 60)
    sink.signal(signal.SIGTERM)
    assert sink.process.wait(20) == 0
    assert sum("is no list" in line for line in sink.lines) == 2


@pytest.mark.kafka
@pytest.mark.faults
def test_a_killed_sink_and_a_killed_redis_lose_nothing(
    kafka: KafkaConnection, topics: TopicPlan, store: Redis, writer: Writer, started: Callable[[], SinkProcess]
) -> None:
    sinks = [started(), started()]
    writing = threading.Thread(target=storm, args=(writer, 25.0))
    writing.start()
    until(lambda: store.lists(begin_of(topics)), "the first lists", 60)
    store.client.save()  # what Redis comes back with
    time.sleep(2)
    sinks[0].signal(signal.SIGKILL)
    sinks[0].process.wait()
    sinks.append(started())
    time.sleep(4)
    store.kill()
    time.sleep(1)
    store.start()
    sinks[1].signal(signal.SIGKILL)
    writing.join()
    until_equal(kafka, topics, store)


@pytest.mark.kafka
@pytest.mark.faults
def test_a_sink_that_slept_overwrites_nothing(
    kafka: KafkaConnection, topics: TopicPlan, store: Redis, writer: Writer, started: Callable[[], SinkProcess]
) -> None:
    slept = started()
    writing = threading.Thread(target=storm, args=(writer, 20.0))
    writing.start()
    until(lambda: store.lists(begin_of(topics)), "the first lists", 60)
    slept.signal(signal.SIGSTOP)
    started()
    time.sleep(9)  # longer than its session
    slept.signal(signal.SIGCONT)
    writing.join()
    until_equal(kafka, topics, store)


def test_a_position_of_another_version_is_none(store: Redis) -> None:
    sink = RedisSink(SinkConfig(store.url), "")
    store.client.set("freshet:position:0", b"7")
    assert sink.position(0) is None
    sink.close()
