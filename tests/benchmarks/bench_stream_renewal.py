"""How soon published lists are without an item that becomes unavailable, and what fresh events wait meanwhile.

    python tests/benchmarks/bench_stream_renewal.py [--lists 2000 100000] [--rate 200]

A real Kafka and a real scorer process with a model of 2,810 items. As many lists of 20 items as asked for lie in
`recommendations`, and all of them hold the item. It is marked unavailable on `items`: `renewed` runs from that record
to the arrival of the last list that is published again. Meanwhile other users' refreshes go on at the rate given; their
latency is from handing a refresh to the producer to the list's arrival, in the ten seconds before and until all lists
are renewed. Exits with 1 when a list is not renewed, or when a renewed list, or one for a refresh that was sent a
second later, holds the item.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
from kafka import TopicPartition

sys.path.insert(0, str(Path(__file__).parents[2]))

from ops.local.broker import LocalBroker
from stream.clients.bulk_producer import BulkProducer
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.items import ItemRecord
from stream.wire.partitioning import home_of
from stream.wire.records import Recommendation, ScoredItem
from stream.wire.topics import TopicPlan, ensure_topics
from tests.benchmarks.bench_stream_scorer import ITEMS, Scorer, announce, refresh

GONE = "i7"
_list = msgspec.json.Decoder(Recommendation)


def publish(connection: KafkaConnection, plan: TopicPlan, count: int) -> None:
    """The lists of `count` users, GONE at a random place of each."""
    rng, now_ms = np.random.default_rng(0), int(time.time() * 1000)
    with BulkProducer(**connection.kafka_python(), linger_ms=20, batch_size=256 * 1024) as producer:
        for n in range(count):
            names = [f"i{item}" for item in rng.integers(100, ITEMS, 20).tolist()]
            names[n % 20] = GONE
            items = tuple(ScoredItem(name, 1.0 - place / 20) for place, name in enumerate(names))
            user = f"u{n}"
            value = msgspec.json.encode(Recommendation(user, items, "v1", "control", now_ms, "event", now_ms))
            tp = TopicPartition(plan.recommendations, home_of(user.encode(), plan.partitions))
            producer.append(tp, user.encode(), value, [])


class Traffic:
    """Refreshes of users who come once, at a steady rate, and all lists that arrive."""

    def __init__(self, connection: KafkaConnection, plan: TopicPlan, rate: float) -> None:
        self._plan, self._rate, self._rng = plan, rate, np.random.default_rng(1)
        self.producer = BulkProducer(**connection.kafka_python(), linger_ms=1)
        self._reader = TopicReader(connection, poll_records=5_000, wait_seconds=0.02)
        self._reader.assign(self._reader.partitions(plan.recommendations))
        self._reader.to_end()
        self._waiting: dict[bytes, float] = {}
        self._sent, self._due = 0, time.perf_counter()
        self.latencies: list[float] = []
        self.renewed: dict[bytes, float] = {}  # when each renewed list arrived
        self.wrong = 0  # lists that hold the item, made after `gone_at`
        self.gone_at = float("inf")

    def turn(self) -> None:
        while time.perf_counter() >= self._due:
            self._due += 1 / self._rate
            self._sent += 1
            user = b"f%d" % self._sent
            value = refresh(0, 1_700_000_000_000 + self._sent, self._rng).encode()
            self._waiting[user] = time.perf_counter()
            tp = TopicPartition(self._plan.refreshes, home_of(user, self._plan.partitions))
            self.producer.append(tp, user, value, [])
        for records in self._reader.poll(0.002).values():
            now = time.perf_counter()
            for record in records:
                if record.key is None or record.value is None:
                    continue
                found = _list.decode(record.value)
                held = any(scored.item == GONE for scored in found.items)
                if found.reason == "items":
                    self.wrong += held
                    if record.key.startswith(b"u"):  # else a fresh list that was made before
                        self.renewed[record.key] = now
                elif record.key in self._waiting:
                    sent = self._waiting.pop(record.key)
                    self.latencies.append(now - sent)
                    self.wrong += held and sent > self.gone_at + 1.0

    def run(self, seconds: float) -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            self.turn()

    def close(self) -> None:
        self.producer.close(timeout=5)
        self._reader.close()


def shown(latencies: list[float]) -> str:
    p50, p99 = np.quantile(latencies, [0.5, 0.99]) * 1000
    return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"


def measure(connection: KafkaConnection, count: int, rate: float, folder: Path) -> bool:
    """False when a list was wrong or missing."""
    plan = TopicPlan(f"renewal{count}-", partitions=8)
    ensure_topics(connection, plan)
    announce(connection, plan, folder)
    publish(connection, plan, count)
    with Scorer(connection, plan, folder):
        traffic = Traffic(connection, plan, rate)
        began = time.perf_counter()
        while len(traffic.latencies) < 20 * rate and time.perf_counter() - began < 120:
            traffic.turn()  # until it answers, and its model is warm
        traffic.latencies.clear()
        traffic.run(10)
        before = shown(traffic.latencies)
        traffic.latencies.clear()
        traffic.producer.send(plan.items, ItemRecord(GONE, available=False).encode(), key=GONE.encode()).get(timeout=10)
        traffic.gone_at = began = time.perf_counter()
        while len(traffic.renewed) < count and time.perf_counter() - began < 300:
            traffic.turn()
        seconds = max(traffic.renewed.values(), default=began) - began
        during = shown(traffic.latencies) if traffic.latencies else "none"
        traffic.run(2)
        traffic.close()
    missing = count - len(traffic.renewed)
    print(
        f"{count:>7,} lists renewed in {seconds:.2f} s, {count / seconds:,.0f} a second; {missing} missing, "
        f"{traffic.wrong} with the item\n        fresh events at {rate:g}/s: {before} before, {during} meanwhile"
    )
    return not (missing or traffic.wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=int, nargs="+", default=[2_000, 100_000])
    parser.add_argument("--rate", type=float, default=200.0)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Kafka on the same machine")
    right = []
    with LocalBroker() as broker:
        connection = KafkaConnection(broker.bootstrap_servers)
        for count in options.lists:
            with tempfile.TemporaryDirectory() as folder:
                right.append(measure(connection, count, options.rate, Path(folder)))
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    main()
