"""How long after its restart a killed worker answers again, and how long a handover takes.

    python tests/benchmarks/bench_stream_takeover.py [--runs 20] [--partitions 8] [--only scorer handover]

A real Kafka, real processes under a supervisor as in `freshet up`, sessions of 30 s, 50 events a second. The worker is
killed with SIGKILL while it works. `restart` runs from the moment when the supervisor starts it again to the first
answer to an event that was sent after the kill: a refresh of the updater, a list of the scorer by its live model (2,810
items); `scorer` as a process of its own, `scorer-forked` as `freshet up` starts it. `CPU` is what the new process has
spent by then, all threads, which a loaded machine changes less than the time. `handover` stops one of two updaters in
order: from its end to the first refresh by the other one.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from kafka import KafkaProducer

sys.path.insert(0, str(Path(__file__).parents[2]))

from ops.local.broker import LocalBroker
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.local.supervisor import Child, RestartPolicy, Supervisor
from stream.wire.partitioning import home_of
from stream.wire.topics import TopicPlan, ensure_topics
from tests.benchmarks.bench_stream_scorer import announce, refresh
from tests.support.arena import NOW, Arena, under_load
from tests.support.updating import group_partitions, until

SESSION = 30.0
RATE = 50  # events per second


class Restart(NamedTuple):
    seconds: float
    cpu_seconds: float


def interaction(user: str) -> bytes:
    return json.dumps({"user": user, "item": "i1", "timestamp": NOW}).encode()


def sent_refresh(user: str) -> bytes:
    return refresh(0, NOW, np.random.default_rng(0)).encode()


class Killed:
    """A worker that is killed again and again. Events go into `source`, answers come out of `answers`."""

    def __init__(
        self,
        kind: str,
        connection: KafkaConnection,
        plan: TopicPlan,
        folder: Path,
        source: str,
        answers: str,
        value: Callable[[str], bytes],
        forked: bool,
    ) -> None:
        self._plan, self._source, self._value = plan, source, value
        self._probes = 0
        self.child = Child(
            kind,
            [
                *(() if forked else (sys.executable, "-m", "stream.cli")),
                *(kind, "--worker", f"the-{kind}"),
                *("--prefix", plan.prefix, "--partitions", str(plan.partitions), "--metrics-port", "0"),
                *("--state-dir", str(folder / kind), "--session-seconds", str(SESSION)),
            ],
            {"FRESHET_BOOTSTRAP_SERVERS": connection.bootstrap_servers},
            forked,
        )
        self.lines: list[str] = []
        policy = RestartPolicy(longest_seconds=0.5)  # this one is not to be told from a child that crashes in a loop
        self.supervisor = Supervisor([self.child], lambda name, line: self.lines.append(line), policy=policy)
        self._producer = KafkaProducer(**connection.kafka_python(), linger_ms=2)
        self._reader = TopicReader(connection, wait_seconds=0.02)
        self._reader.assign(self._reader.partitions(answers))
        self._reader.to_end()

    def _send(self, user: str) -> None:
        number = home_of(user.encode(), self._plan.partitions)
        self._producer.send(self._source, self._value(user), key=user.encode(), partition=number)

    def answered(self) -> float:
        """When an event that is sent now was answered."""
        self._probes += 1
        user, deadline = f"probe{self._probes}", time.monotonic() + 60
        self._send(user)
        while time.monotonic() < deadline:
            self.supervisor.watch()
            if any(record.key == user.encode() for records in self._reader.poll(0.02).values() for record in records):
                return time.monotonic()
        raise TimeoutError("\n".join(self.lines[-30:]))

    def restart(self) -> Restart:
        process = self.child.process
        assert process is not None
        process.kill()
        process.wait()
        while self.child.process is None or self.child.process is process:
            self.supervisor.watch()
            time.sleep(0.01)
        began = time.monotonic()
        seconds = self.answered() - began
        times = psutil.Process(self.child.process.pid).cpu_times()
        return Restart(seconds, times.user + times.system)

    @contextmanager
    def under_load(self) -> Iterator[None]:
        stop = threading.Event()

        def send() -> None:
            number = 0
            while not stop.wait(1 / RATE):
                number += 1
                self._send(f"u{number % 500}")

        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            stop.set()
            sender.join()

    def close(self) -> None:
        self.supervisor.stop()
        self._producer.close(timeout=5)
        self._reader.close()


def restarts(what: str, connection: KafkaConnection, partitions: int, folder: Path, runs: int) -> list[Restart]:
    kind, _, forked = what.partition("-")
    plan, folder = TopicPlan(f"{what}-", partitions), folder / what
    ensure_topics(connection, plan)
    if kind == "updater":
        topics, value = (plan.interactions, plan.refreshes), interaction
    else:
        announce(connection, plan, folder)
        topics, value = (plan.refreshes, plan.recommendations), sent_refresh
    killed = Killed(kind, connection, plan, folder, *topics, value, bool(forked))
    try:
        killed.supervisor.start()
        killed.answered()
        found = []
        for _ in range(runs):
            with killed.under_load():
                time.sleep(2)
                found.append(killed.restart())
        return found
    finally:
        killed.close()


def first_refresh(arena: Arena, reader: TopicReader, partition: int, number: int) -> float:
    """Seconds until an event that is sent now to this partition is answered by a refresh."""
    began = time.perf_counter()
    user = next(
        u for n in range(10_000) if home_of((u := f"probe{number}-{n}").encode(), arena.plan.partitions) == partition
    )
    arena.producer.send(arena.plan.interactions, interaction(user), key=user.encode()).get(timeout=10)
    while time.perf_counter() - began < 60:
        for records in reader.poll(0.05).values():
            if any(record.key == user.encode() for record in records):
                return time.perf_counter() - began
    raise TimeoutError(f"no refresh of {user}")


def handovers(connection: KafkaConnection, partitions: int, folder: Path, runs: int) -> list[float]:
    arena, found = Arena(connection, TopicPlan("handover-", partitions), folder), []
    try:
        with TopicReader(arena.kafka, wait_seconds=0.02) as reader:
            reader.assign(reader.partitions(arena.plan.refreshes))
            reader.to_end()
            arena.worker("two", session_seconds=SESSION).wait_ready()
            for run in range(runs):
                one = arena.worker("one", session_seconds=SESSION).wait_ready()
                until(lambda: len(group_partitions(arena.kafka, arena.plan).get("one", ())) > 0, "sharing")
                mine = group_partitions(arena.kafka, arena.plan)["one"][0]
                with under_load(arena):
                    one.stop()
                    found.append(first_refresh(arena, reader, mine, run))
        return found
    finally:
        for worker in arena.workers:
            worker.end()
        arena.producer.close(timeout=5)


def summary(values: list[float]) -> str:
    return f"median {statistics.median(values):.2f} s, largest {max(values):.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--partitions", type=int, default=8)
    what = ("updater", "scorer", "scorer-forked", "handover")
    parser.add_argument("--only", nargs="+", choices=what, default=what)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; session {SESSION:.0f} s")
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        connection = KafkaConnection(broker.bootstrap_servers)
        for kind in what[:-1]:
            if kind in options.only:
                found = restarts(kind, connection, options.partitions, Path(folder), options.runs)
                below = sum(restart.seconds <= 3 for restart in found)
                seconds, cpu = ([restart[place] for restart in found] for place in (0, 1))
                print(f"{kind:13} restart  {summary(seconds)}; {below} of {len(found)} within 3 s")
                print(f"{kind:13} CPU      {summary(cpu)}; load {os.getloadavg()[0]:.1f}")
        if "handover" in options.only:
            seconds = handovers(connection, options.partitions, Path(folder), options.runs)
            print(f"updater       handover {summary(seconds)}")


if __name__ == "__main__":
    main()
