"""Updaters as processes of their own under attack, and what must come out of them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from kafka import KafkaProducer

from state.history import Entry
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.demo.audit import changelog_histories, differences, reference_merge, stored_histories
from stream.wire.topics import TopicPlan, ensure_topics
from tests.support.updating import read_all

WORKER = Path(__file__).parent / "fault_worker.py"
NOW = 1_700_000_000_000
LIMIT = 20


class Worker:
    """An updater process; its lines are kept for the message of a failing test."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan, state_dir: Path, **options: object) -> None:
        settings = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "prefix": plan.prefix,
            "partitions": plan.partitions,
            "state_dir": str(state_dir),
            "history_items": LIMIT,
            **options,
        }
        root = str(Path(__file__).parents[2])
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )
        self.name = state_dir.name
        self.lines: list[str] = []
        self.ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("ready"):
                self.ready.set()

    def wait_ready(self) -> "Worker":
        deadline = time.monotonic() + 60
        while not self.ready.wait(0.2):
            gone = self.process.poll() is not None or time.monotonic() > deadline
            assert not gone, "\n".join(self.lines[-30:])
        return self

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Arena:
    """One Freshet under attack: what was sent, who works, and what must come out."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan, folder: Path) -> None:
        self.kafka, self.plan, self.folder = kafka, plan, folder
        self.events: list[tuple[str, Entry]] = []
        self.broken = 0
        self.workers: list[Worker] = []
        self._rng = np.random.default_rng(7)
        self.make_topics()
        self.producer = KafkaProducer(**kafka.kafka_python(), linger_ms=2, delivery_timeout_ms=90_000)

    def make_topics(self) -> None:
        ensure_topics(self.kafka, self.plan)

    def worker(self, name: str = "w", **options: object) -> Worker:
        worker = Worker(self.kafka, self.plan, self.folder / name, worker=name, **options)
        self.workers.append(worker)
        return worker

    def send(self, count: int, broken_every: int = 25) -> None:
        """Events of 40 users with times in disorder, some twice, and broken records between them."""
        for n in range(count):
            user = f"u{self._rng.integers(40)}"
            entry = Entry(NOW + int(self._rng.integers(1_000_000)), f"i{self._rng.integers(200)}", 1.0)
            self.events.append((user, entry))
            value = json.dumps({"user": user, "item": entry.item, "timestamp": entry.time_ms}).encode()
            for _ in range(1 + (n % 10 == 0)):
                self.producer.send(self.plan.interactions, value, key=user.encode())
            if n % broken_every == 0:
                self.broken += 1
                self.producer.send(self.plan.interactions, b'{"n": %d' % self.broken, key=user.encode())
        self.producer.flush()

    def expected(self) -> dict:
        return reference_merge(self.events, LIMIT)

    def until_caught_up(self, seconds: float = 120.0, revive: bool = False) -> None:
        """`revive`: a worker may give up, and the last one is started again, as its supervisor would."""
        expected, deadline = self.expected(), time.monotonic() + seconds
        while (found := differences(changelog_histories(self.kafka, self.plan.histories), expected)) != []:
            nobody = all(worker.process.poll() is not None for worker in self.workers)
            if nobody and revive:
                self.worker(self.workers[-1].name)
                nobody = False
            assert not nobody and time.monotonic() < deadline, "\n".join(found[:5] + self.recent_lines())
            time.sleep(0.3)

    def recent_lines(self) -> list[str]:
        return [line for worker in self.workers for line in worker.lines[-15:]]

    def check(self, *folders: str) -> None:
        """After all workers stopped."""
        expected = self.expected()
        assert differences(changelog_histories(self.kafka, self.plan.histories), expected) == []
        if folders:
            admin = admin_client(self.kafka)
            stores = [self.folder / name / "histories" for name in folders]
            assert differences(stored_histories(admin, self.plan.histories, stores), expected) == []
            admin.close()
        letters = Counter(self.dead_letters())
        assert len(letters) == self.broken
        assert set(letters.values()) <= {1}, "a rejected record must be a dead letter exactly once"

    def dead_letters(self) -> list[bytes]:
        return [letter.value for letter in read_all(self.kafka, self.plan.dead_letters)]

    def close(self) -> None:
        for worker in self.workers:
            worker.end()
        print("\n".join(self.recent_lines()))  # shown by pytest when the test failed
        self.producer.close(timeout=5)


def background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@contextmanager
def under_load(arena: Arena) -> Iterator[None]:
    """Events all the while."""
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.05):
            arena.send(20)

    sender = background(send)
    try:
        yield
    finally:
        stop.set()
        sender.join()
