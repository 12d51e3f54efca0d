"""How long after its restart a killed updater serves its partitions again, and how long a handover takes.

Two updaters share the partitions under load. One is killed and started again; the time runs from its start to the first
refresh of an event that was sent after the kill to one of its partitions. Then it is stopped; the time runs from its
end to the first such refresh by the other one.

python tests/benchmarks/bench_stream_takeover.py [--runs 20] [--partitions 8]
"""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from ops.local.broker import LocalBroker
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.partitioning import home_of
from stream.wire.topics import TopicPlan
from tests.support.arena import NOW, Arena, under_load
from tests.support.updating import group_partitions, until

SESSION = 30.0


def first_refresh(arena: Arena, reader: TopicReader, partition: int, number: int) -> float:
    """Seconds until an event that is sent now to this partition is answered by a refresh."""
    began = time.perf_counter()
    user = next(
        u for n in range(10_000) if home_of((u := f"probe{number}-{n}").encode(), arena.plan.partitions) == partition
    )
    value = json.dumps({"user": user, "item": "i", "timestamp": NOW}).encode()
    arena.producer.send(arena.plan.interactions, value, key=user.encode()).get(timeout=10)
    while time.perf_counter() - began < 60:
        for records in reader.poll(0.05).values():
            if any(record.key == user.encode() for record in records):
                return time.perf_counter() - began
    raise TimeoutError(f"no refresh of {user}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--partitions", type=int, default=8)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; session {SESSION:.0f} s")
    times: dict[str, list[float]] = {"restart": [], "handover": []}
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        arena = Arena(KafkaConnection(broker.bootstrap_servers), TopicPlan("t-", options.partitions), Path(folder))
        try:
            with TopicReader(arena.kafka, wait_seconds=0.02) as reader:
                reader.assign(reader.partitions(arena.plan.refreshes))
                reader.to_end()
                other = arena.worker("two", session_seconds=SESSION).wait_ready()
                for run in range(options.runs):
                    one = arena.worker("one", session_seconds=SESSION).wait_ready()
                    until(lambda: len(group_partitions(arena.kafka, arena.plan).get("one", ())) > 0, "sharing")
                    mine = group_partitions(arena.kafka, arena.plan)["one"][0]
                    with under_load(arena):
                        one.signal(signal.SIGKILL)
                        one.process.wait()
                        again = arena.worker("one", session_seconds=SESSION)
                        times["restart"].append(first_refresh(arena, reader, mine, 2 * run))
                        again.stop()
                        times["handover"].append(first_refresh(arena, reader, mine, 2 * run + 1))
                    assert other.process.poll() is None
        finally:
            arena.close()
    for what, seconds in times.items():
        median, largest = statistics.median(seconds), max(seconds)
        print(f"{what:9} median {median:.2f} s, largest {largest:.2f} s of {len(seconds)} runs")


if __name__ == "__main__":
    main()
