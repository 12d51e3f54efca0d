"""What one scorer process carries: refreshes per second of a backlog, then latency at steady rates.

    python tests/benchmarks/bench_stream_scorer.py [--refreshes 30000] [--rates 200 1000] [--seconds 20]

A real Kafka, a real scorer process, a fitted model of 2,810 items and histories of 50 items. Latency is from handing a
refresh to the producer to the list's arrival at another consumer.
"""

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from kafka import KafkaProducer

from model.artifact import Manifest, save_artifact
from model.batch import Histories
from model.config import preset
from model.items import ItemIndex
from model.learner import Learner
from ops.local.broker import LocalBroker
from state import codec
from state.history import History
from stream.clients.connection import KafkaConnection
from stream.demo.latency_probe import Observer
from stream.demo.scrape import Scrape, scrape
from stream.local.pipeline import free_port
from stream.local.supervisor import Child, Supervisor
from stream.registry.slots import SlotWriter
from stream.wire.records import Announcement, NewInteraction, Refresh
from stream.wire.topics import TopicPlan, ensure_topics

ITEMS, USERS, PLACES = 2_810, 6_000, 50


def refresh(user: int, now_ms: int, rng: np.random.Generator) -> Refresh:
    items = tuple(f"i{item}" for item in rng.choice(ITEMS, PLACES, replace=False).tolist())
    times = tuple(range(now_ms, now_ms - PLACES, -1))
    history = History(items, times, (1.0,) * PLACES)
    return Refresh("event", int(time.time() * 1000), (NewInteraction(items[0], now_ms, False),), codec.encode(history))


def announce(connection: KafkaConnection, plan: TopicPlan, folder: Path) -> None:
    learner = Learner.fresh(
        preset("stream"), ItemIndex([f"i{n}" for n in range(ITEMS)]), seed=0, device=torch.device("cpu")
    )
    rng = np.random.default_rng(0)
    rows = [(user, item) for user in range(1000) for item in rng.choice(ITEMS, PLACES, replace=False)]
    learner.fit(Histories.from_rows(np.array(rows), users=1000), epochs=1)  # random tastes, a real model's cost
    now_ms = int(time.time() * 1000)
    slots = SlotWriter(connection, plan.models)
    for slot, version in (("previous", "v0"), ("live", "v1")):
        address = str(folder / version)
        sha256 = save_artifact(address, learner, Manifest(version=version, created=now_ms, data_until=now_ms))
        slots.put(slot, Announcement(slot, version, address, sha256, "", now_ms, now_ms, ITEMS))
    slots.close()


class Scorer:
    """A scorer process and what it says of itself."""

    def __init__(self, connection: KafkaConnection, plan: TopicPlan, folder: Path, options: Sequence[str] = ()) -> None:
        port = free_port()
        self.urls = {"scorer": f"http://127.0.0.1:{port}/metrics"}
        command = [
            *(sys.executable, "-m", "stream.cli", "--log-level", "warning", "scorer"),
            *("--prefix", plan.prefix, "--partitions", str(plan.partitions)),
            *("--state-dir", str(folder / "scorer"), "--metrics-port", str(port), "--device", "cpu"),
            *options,
        ]
        environment = {"FRESHET_BOOTSTRAP_SERVERS": connection.bootstrap_servers}
        self.child = Child("scorer", command, environment)
        self.supervisor = Supervisor([self.child], lambda name, line: print(f"  {name} | {line}", file=sys.stderr))

    def __enter__(self) -> "Scorer":
        self.supervisor.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.supervisor.stop()

    def look(self) -> Scrape:
        return scrape(self.urls)

    def consumed(self) -> float:
        return self.look().total("freshet_events_consumed_total")

    def cpu_seconds(self) -> float:
        assert self.child.process is not None
        times = psutil.Process(self.child.process.pid).cpu_times()
        return times.user + times.system


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the scorer did not get there in time")
        time.sleep(0.25)


@dataclass(frozen=True)
class Backlog:
    """What a scorer spent on the middle of a backlog, and what it said of all of it."""

    refreshes: float
    seconds: float
    cpu_seconds: float
    seen: Scrape


def backlog(
    connection: KafkaConnection, plan: TopicPlan, folder: Path, count: int, options: Sequence[str] = ()
) -> Backlog:
    with_topics(connection, plan)
    announce(connection, plan, folder)
    rng = np.random.default_rng(0)
    producer = KafkaProducer(**connection.kafka_python(), linger_ms=20, batch_size=256 * 1024)
    for n in range(count):
        user = n % USERS
        value = refresh(user, 1_700_000_000_000 + n, rng).encode()
        producer.send(plan.refreshes, value, key=f"u{user}".encode(), partition=user % plan.partitions)
    producer.flush()
    producer.close()
    with Scorer(connection, plan, folder, options) as scorer:
        wait_for(lambda: scorer.consumed() > count * 0.05, 60)
        first, began, cpu = scorer.consumed(), time.perf_counter(), scorer.cpu_seconds()
        wait_for(lambda: scorer.consumed() >= count * 0.95, 120)
        done, seconds = scorer.consumed() - first, time.perf_counter() - began
        cpu = scorer.cpu_seconds() - cpu
        wait_for(lambda: scorer.consumed() >= count, 60)
        return Backlog(done, seconds, cpu, scorer.look())


def show(count: int, done: Backlog) -> None:
    seen = done.seen
    batches, lists = (
        seen.total(f"freshet_{name}") for name in ("scoring_batch_users_count", "recommendations_published_total")
    )
    print(f"backlog of {count:,} refreshes, {USERS:,} users, {PLACES} items each, {ITEMS:,} items in the model")
    print(f"  {done.refreshes / done.seconds:10,.0f} refreshes/s", end="")
    print(f"    {1e6 * done.cpu_seconds / done.refreshes:8,.0f} us of CPU each")
    print(f"  {lists:10,.0f} lists in {batches:,.0f} batches")
    for stage in ("load", "forward", "topk", "publish"):
        spent = seen.total("freshet_scoring_seconds_sum", stage=stage)
        print(f"  {1e6 * spent / max(lists, 1):10,.0f} us {stage}")


def steady(connection: KafkaConnection, folder: Path, rate: float, seconds: float) -> None:
    plan = TopicPlan(prefix=f"steady-{rate:.0f}-")
    with_topics(connection, plan)
    announce(connection, plan, folder / plan.prefix)
    rng = np.random.default_rng(0)
    with Scorer(connection, plan, folder / plan.prefix) as scorer:
        wait_for(lambda: scorer.look().total("freshet_model_vocabulary_items") > 0, 60)
        observer = Observer(connection, plan.recommendations)
        producer = KafkaProducer(**connection.kafka_python(), linger_ms=0)
        stop = threading.Event()
        began, cpu, count = time.monotonic(), 0.0, int(rate * (seconds + 5))
        warm = int(rate * 5)
        for n in range(count):
            wait = began + n / rate - time.monotonic()
            if wait > 0:
                stop.wait(wait)
            if n == warm:
                skipped, cpu = len(observer.latencies), scorer.cpu_seconds()
            user, now_ms = n % USERS, int(time.time() * 1000)
            value = refresh(user, now_ms, rng).encode()
            observer.sent(f"u{user}", now_ms)
            producer.send(plan.refreshes, value, key=f"u{user}".encode(), partition=user % plan.partitions)
        cpu = scorer.cpu_seconds() - cpu
        producer.close()
        wait_for(lambda: not observer.unanswered, 30)
        late = np.array(observer.latencies[skipped:]) * 1000
        observer.close()
    quantiles = np.quantile(late, (0.5, 0.9, 0.99, 1.0))
    print(f"{rate:6,.0f} refreshes/s for {seconds:.0f} s: {100 * cpu / seconds:.0f} % of a core, {len(late):,} lists")
    print("         p50 {:6.1f}   p90 {:6.1f}   p99 {:6.1f}   max {:6.1f} ms".format(*quantiles))


def with_topics(connection: KafkaConnection, plan: TopicPlan) -> None:
    ensure_topics(connection, plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refreshes", type=int, default=30_000)
    parser.add_argument("--rates", type=float, nargs="*", default=[200, 1000])
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
    )
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        connection = KafkaConnection(broker.bootstrap_servers)
        if options.refreshes:
            plan = TopicPlan(prefix="backlog-")
            show(options.refreshes, backlog(connection, plan, Path(folder) / "backlog", options.refreshes))
        for rate in options.rates:
            steady(connection, Path(folder), rate, options.seconds)


if __name__ == "__main__":
    main()
