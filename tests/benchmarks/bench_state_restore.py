"""How fast a lost store comes back: histories per second from the compacted topic into RocksDB.

python tests/benchmarks/bench_state_restore.py [--histories 300000] [--rounds 3]
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

from kafka import KafkaProducer

from ops.local.broker import LocalBroker
from state import codec
from state.history import EMPTY, Entry, merge_entries
from state.store import StoreMemory
from stream.clients.connection import KafkaConnection
from stream.updater.restore import Restorer
from stream.updater.store_folder import StoreFolder
from stream.wire.topics import TopicPlan, ensure_topics

ITEMS, NOW = 20, 1_700_000_000_000


def now_ms() -> int:
    return int(time.time() * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    plan, memory = TopicPlan(partitions=2), StoreMemory()
    entries = [Entry(NOW + n, f"i{n}", 1.0) for n in range(ITEMS)]
    value = codec.encode(merge_entries(EMPTY, entries, 200))
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        connection = KafkaConnection(broker.bootstrap_servers)
        ensure_topics(connection, plan)
        producer = KafkaProducer(**connection.kafka_python(), linger_ms=20, batch_size=256 * 1024)
        for user in range(options.histories):
            producer.send(plan.histories, value, key=b"u%d" % user, partition=user % plan.partitions)
        producer.flush()
        producer.close()
        rates, per_core = [], []
        for number in range(options.rounds):
            path = Path(folder) / str(number)
            restorer = Restorer(connection, plan.histories, StoreFolder(path, 0.0), memory, plan.tombstone_ms, now_ms)
            began, cpu = time.perf_counter(), time.process_time()
            stores = [restorer.begin(partition) for partition in range(plan.partitions)]
            while restorer:
                restorer.step()
            rates.append(options.histories / (time.perf_counter() - began))
            per_core.append(options.histories / (time.process_time() - cpu))
            restorer.close()
            for store in stores:
                store.close()
    rate, core = statistics.median(rates), statistics.median(per_core)
    print(f"{options.histories:,} histories of {ITEMS} items, {len(value)} bytes, {plan.partitions} partitions")
    print(f"{rate:,.0f} histories/s, {core:,.0f} per core; median of {options.rounds}")


if __name__ == "__main__":
    main()
