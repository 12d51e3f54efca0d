"""How fast a CSV is replayed into Kafka, beside a bare producer of the same records, and with how much memory.

    python tests/benchmarks/bench_stream_replay.py [--mb 200] [--text 0] [--bare 300000]

Writes a log of that size (`user,item,timestamp,text`, times in disorder, 200,000 users, 50,000 items, texts of `--text`
letters, which are left out), replays it with
`freshet replay` into a real Kafka of this machine, and reads back how many events arrived. The bare producer sends the
first records of the log once more with nothing but kafka-python, in batches of the same size: its rate is what the
client library allows. Memory is the most that the process held (RSS, the client and what it maps included); what the
log reader sorts lies on disk.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
from kafka import KafkaProducer

sys.path.insert(0, str(Path(__file__).parents[2]))

from ops.local.broker import LocalBroker
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.sources.log.reader import read_log
from stream.sources.outbox import as_record
from stream.wire.partitioning import home_of
from stream.wire.topics import TopicPlan, ensure_topics

MB = 1_000_000
ROWS = 100_000  # written at a time
START = 1_600_000_000


def write_log(path: Path, megabytes: float, text: int) -> int:
    """Returns the number of rows."""
    rng, rows, words = np.random.default_rng(0), 0, "x" * text
    with path.open("w") as file:
        file.write("user,item,timestamp,text\n")
        while file.tell() < megabytes * MB:
            users, items = rng.integers(200_000, size=ROWS), rng.zipf(1.3, ROWS) % 50_000
            times = START + rows // 10 + rng.integers(-50_000, 50_000, ROWS)
            file.writelines(f"user-{u},item-{i},{t},{words}\n" for u, i, t in zip(users, items, times, strict=True))
            rows += ROWS
    return rows


def arrived(connection: KafkaConnection, plan: TopicPlan) -> int:
    with TopicReader(connection) as reader:
        partitions = reader.partitions(plan.interactions)
        reader.assign(partitions)
        return sum(reader.ends(partitions).values())


def replayed(connection: KafkaConnection, plan: TopicPlan, path: Path, folder: Path) -> tuple[float, float, int]:
    """Seconds of wall clock, seconds of CPU, and the largest resident size in bytes."""
    command = [
        *(sys.executable, "-m", "stream.cli", "--log-level", "warning", "replay", str(path), "--prefix", plan.prefix),
        *("--partitions", str(plan.partitions), "--progress-dir", str(folder)),
    ]
    environment = {**os.environ, "FRESHET_BOOTSTRAP_SERVERS": connection.bootstrap_servers}
    began, largest, cpu = time.perf_counter(), 0, 0.0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                largest = max(largest, watched.memory_info().rss)
                times = watched.cpu_times()
                cpu = times.user + times.system
            except psutil.Error:
                break
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"the replay ended with {process.returncode}")
    return time.perf_counter() - began, cpu, largest


def bare(connection: KafkaConnection, plan: TopicPlan, path: Path, count: int) -> float:
    """Records per second of the producer alone; they are made before the clock starts."""
    with read_log(path) as log:
        records = [as_record(event) for event in islice(log.interactions(), count)]
    with TopicReader(connection) as reader:
        partitions = len(reader.partitions(plan.interactions))
    placed = [(home_of(key, partitions), key, value) for key, value in records if key is not None]
    producer = KafkaProducer(
        **connection.kafka_python(), linger_ms=5, batch_size=256 * 1024, max_request_size=8 << 20, metrics_enabled=False
    )
    began = time.perf_counter()
    for partition, key, value in placed:
        producer.send(plan.interactions, value, key=key, partition=partition)
    producer.flush()
    seconds = time.perf_counter() - began
    producer.close()
    return len(placed) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=200)
    parser.add_argument("--text", type=int, default=0)
    parser.add_argument("--bare", type=int, default=300_000)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Kafka on the same machine")
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        connection, path = KafkaConnection(broker.bootstrap_servers), Path(folder) / "log.csv"
        rows = write_log(path, options.mb, options.text)
        plan, alone = TopicPlan("replay-", 4), TopicPlan("bare-", 4)
        for topics in (plan, alone):
            ensure_topics(connection, topics)
        seconds, cpu, largest = replayed(connection, plan, path, Path(folder) / "progress")
        found = arrived(connection, plan)
        print(f"replay   {rows:,} rows of {path.stat().st_size / MB:,.0f} MB in {seconds:.0f} s, all of it")
        print(f"         {rows / seconds:,.0f} rows/s, {cpu / rows * 1e6:.0f} us of CPU each, {largest / MB:,.0f} MB")
        print(f"         {found:,} events arrived")
        rate = bare(connection, alone, path, min(options.bare, rows))
        print(f"producer {rate:,.0f} rows/s for {min(options.bare, rows):,} of them, load {os.getloadavg()[0]:.1f}")
        if found != rows:
            raise SystemExit(f"{rows - found:,} events are missing")


if __name__ == "__main__":
    main()
