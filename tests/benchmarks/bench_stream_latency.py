"""Event to recommendation, as a client sees it: from handing an event to its producer to holding the user's new list.

A real Kafka, the three processes, a simulated world and the measuring client share this machine; the client is
librdkafka's, so that it takes little of it. Measuring starts when a model is live; every event must be answered.
Where the time went is read from the records' timestamps afterwards.

    python tests/benchmarks/bench_stream_latency.py --rate 200 --seconds 60
    python tests/benchmarks/bench_stream_latency.py --rate 1000 --seconds 600 --items 2810
"""

import argparse
import os
import platform
import tempfile
import threading
import time
from collections import Counter, defaultdict, deque
from pathlib import Path

import msgspec
import numpy as np
import psutil
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from ops.local.broker import BrokerConfig, LocalBroker
from stream.clients.connection import KafkaConnection
from stream.demo.scrape import scrape
from stream.local.pipeline import Pipeline, PipelineConfig
from stream.sources.outbox import as_record
from stream.sources.simulate import World, WorldConfig, as_interaction
from stream.wire.records import Refresh
from stream.wire.topics import TopicPlan, ensure_topics

QUANTILES = (0.5, 0.9, 0.99, 0.999)
EDGES_MS = (5, 10, 20, 30, 40, 50, 75, 100, 150, 250, 500, 1000, 5000)


def hardware() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    return f"{os.cpu_count()} cores, {named}; Python {platform.python_version()}"


def cpu_seconds() -> Counter[str]:
    """What this process and everything it started has spent, by role."""
    found: Counter[str] = Counter()
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        try:
            # A scorer is forked, and has its own name instead of a command line.
            words, times = [*process.cmdline(), process.name().removeprefix("freshet-")], process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        role = next((role for role in ("updater", "scorer", "trainer") if role in words), "")
        found[role or ("broker" if "java" in words[0] else "client")] += times.user + times.system
    return found


class List(msgspec.Struct):
    """What is read of a published list."""

    user: str
    as_of: int
    model: str


class Answer(msgspec.Struct):
    user: str
    time_ms: int  # of the event, by the client's clock as it was handed over
    listed_ms: int  # when the scorer sent the list
    seconds: float  # until the client had it


class Client:
    """Sends events and, in a thread, meets the lists that answer them."""

    def __init__(self, servers: str, plan: TopicPlan) -> None:
        client = {"bootstrap.servers": servers, "log_level": 2}  # the end of the broker is no news
        self._producer = Producer(client | {"linger.ms": 0, "partitioner": "murmur2_random", "acks": "all"})
        self._plan = plan
        self.answers: list[Answer] = []
        self.models: list[str] = []
        self.lists = 0
        self._pending: dict[str, deque[tuple[int, float]]] = defaultdict(deque)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._consumer = reader(client, plan.recommendations, plan.partitions)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def send(self, user: str, key: bytes, value: bytes, time_ms: int) -> None:
        with self._lock:
            self._pending[user].append((time_ms, time.perf_counter()))
        self._producer.produce(self._plan.interactions, value, key)
        self._producer.poll(0)

    def _read(self) -> None:
        decode = msgspec.json.Decoder(List).decode
        while not self._stop.is_set():
            message = self._consumer.poll(0.05)
            if message is None or message.error():
                continue
            value, now = message.value(), time.perf_counter()
            if value is None:
                continue
            found = decode(value)
            self.lists += 1
            if found.model and found.model not in self.models:
                self.models.append(found.model)
            with self._lock:
                pending = self._pending[found.user]
                while pending and pending[0][0] <= found.as_of:
                    time_ms, began = pending.popleft()
                    self.answers.append(Answer(found.user, time_ms, message.timestamp()[1], now - began))

    @property
    def unanswered(self) -> int:
        with self._lock:
            return sum(map(len, self._pending.values()))

    def finish(self, seconds: float) -> None:
        """Wait so long for the last answers."""
        self._producer.flush(10)
        deadline = time.monotonic() + seconds
        while self.unanswered and time.monotonic() < deadline:
            time.sleep(0.1)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()


def reader(client: dict, topic: str, partitions: int) -> Consumer:
    """Of the whole topic, from its beginning."""
    consumer = Consumer(client | {"group.id": "bench", "enable.auto.commit": False, "fetch.wait.max.ms": 50})
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
    return consumer


def refreshed_ms(servers: str, plan: TopicPlan) -> dict[tuple[str, int], int]:
    """(user, event time) -> when the updater sent the refresh."""
    found: dict[tuple[str, int], int] = {}
    consumer = reader({"bootstrap.servers": servers, "log_level": 2}, plan.refreshes, plan.partitions)
    while messages := consumer.consume(1000, 2.0):
        for message in messages:
            user, value = message.key(), message.value()
            if user is not None and value is not None:
                for event in Refresh.decode(value).new:
                    found[user.decode(), event.time_ms] = message.timestamp()[1]
    consumer.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200.0, help="events per second")
    parser.add_argument("--seconds", type=float, default=60.0, help="measured, after the warm-up")
    parser.add_argument("--warm-up", type=float, default=120.0, help="seconds at most until a model is live")
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--round-seconds", type=float, default=120.0, help="between fine-tuning rounds")
    options = parser.parse_args()

    stop = threading.Event()
    world = World(WorldConfig(users=options.users, items=options.items), np.random.default_rng(0))
    events = [world.event() for _ in range(int(options.rate * (options.seconds + options.warm_up)))]
    with LocalBroker(BrokerConfig(optimise=True)) as broker, tempfile.TemporaryDirectory() as folder:
        connection = KafkaConnection(broker.bootstrap_servers)
        trainer = (
            *("--round-seconds", str(options.round_seconds), "--threads", "1"),
            *("--first-users", "50", "--first-interactions", "1500", "--first-epochs", "10", "--first-updates", "100"),
        )
        plan = TopicPlan()
        ensure_topics(connection, plan)
        lines: list[str] = []
        pipeline = Pipeline(
            PipelineConfig(Path(folder), apis=0),
            broker.bootstrap_servers,
            plan,
            lambda name, line: lines.append(f"{name} {line}"),
            options={"trainer": trainer},
        )
        runner = threading.Thread(target=pipeline.run, args=(stop,))
        runner.start()
        client = Client(broker.bootstrap_servers, plan)
        try:
            while (seen := scrape(pipeline.metrics_urls)).down or seen.waiting():
                time.sleep(0.5)
                if not runner.is_alive():
                    raise SystemExit("the pipeline ended before it was ready")
            began, measured_from, before = time.monotonic(), None, 0
            for sent, event in enumerate(events, 1):
                elapsed = time.monotonic() - began
                if elapsed < sent / options.rate:
                    time.sleep(sent / options.rate - elapsed)
                time_ms = time.time_ns() // 1_000_000
                interaction = as_interaction(event, time_ms)
                client.send(interaction.user, *as_record(interaction), time_ms)
                if measured_from is None and (client.models or elapsed > options.warm_up):
                    measured_from, before, spent_before = elapsed, len(client.answers), cpu_seconds()
                if measured_from is not None and elapsed >= measured_from + options.seconds:
                    break
            spent = cpu_seconds() - spent_before
            seconds = time.monotonic() - began
            client.finish(20)
            seen = scrape(pipeline.metrics_urls)
            applied = seen.total("freshet_events_applied_total")
            refreshed = refreshed_ms(broker.bootstrap_servers, plan)
        finally:
            stop.set()
            runner.join()
            client.close()
    for line in lines:
        if any(word in line for word in ("WARNING", "ERROR", "Traceback", "ended", "again")):
            print(f"  {line}")
    answers = client.answers[before:]
    latencies = np.array([answer.seconds for answer in answers]) * 1000
    print(hardware())
    print(f"{sent:,} events at {sent / seconds:,.0f}/s, {applied:,.0f} merged, {client.lists:,} lists,", end=" ")
    print(f"{len(client.models)} models taken live, {client.unanswered} events unanswered")
    print(
        "  ".join(f"p{100 * q:g} {np.quantile(latencies, q):.0f} ms" for q in QUANTILES),
        f"  max {latencies.max():.0f} ms",
    )
    hops = np.array(
        [
            (answer.time_ms, refreshed[key], answer.listed_ms, answer.time_ms + answer.seconds * 1000)
            for answer in answers
            if (key := (answer.user, answer.time_ms)) in refreshed
        ]
    )
    for name, took in zip(("to its refresh", "from there to the list", "to the client"), np.diff(hops).T, strict=True):
        print(f"  {name:<24} p50 {np.quantile(took, 0.5):5.0f} ms   p99 {np.quantile(took, 0.99):5.0f} ms")
    shares = (f"{role} {100 * used / options.seconds:.0f} %" for role, used in spent.most_common())
    print("  of a core: " + ", ".join(shares))
    batches = max(seen.total("freshet_scoring_batch_users_count"), 1)
    stages = (
        f"{stage} {1000 * seen.total('freshet_scoring_seconds_sum', stage=stage) / batches:.1f} ms"
        for stage in ("load", "forward", "topk", "publish")
    )
    print(f"  a batch of the scorer: {client.lists / batches:.0f} users, " + ", ".join(stages))
    minutes = (np.array([answer.time_ms for answer in answers]) - answers[0].time_ms) // 60_000
    for minute in np.unique(minutes) if options.seconds >= 120 else ():
        of_it = latencies[minutes == minute]
        middle, late = np.quantile(of_it, [0.5, 0.99])
        print(f"  minute {minute + 1:>3}: p50 {middle:5.0f} ms   p99 {late:5.0f} ms   max {of_it.max():5.0f} ms")
    counts, _ = np.histogram(latencies, [0, *EDGES_MS, np.inf])
    for edge, count in zip([*EDGES_MS, np.inf], counts, strict=True):
        print(f"  up to {edge:>5g} ms {count:>9,}  {'#' * int(60 * count / max(counts.max(), 1))}")


if __name__ == "__main__":
    main()
