"""What an event costs as the store grows: read, merge and write a batch of users, from ten thousand to five million.

    python tests/benchmarks/bench_state_size.py [--users 10000 100000 1000000 5000000]

One store with the default memory settings and 20 items per user. The order of users is random, so the store is read
everywhere. Memory is that of the whole process.
"""

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from state import codec
from state.history import EMPTY, Entry, merge_entries
from state.store import Store, StoreMemory

BATCH, ITEMS, LIMIT, NOW = 2_000, 20, 200, 1_700_000_000_000


def key(user: int) -> bytes:
    return b"user-%d" % (user * 2_654_435_761 % 2**32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 5_000_000])
    parser.add_argument("--batches", type=int, default=50)
    options = parser.parse_args()
    rng, process = np.random.default_rng(0), psutil.Process()
    samples = [
        codec.encode(merge_entries(EMPTY, [Entry(NOW + n, f"i{i}", 1.0) for n, i in enumerate(items)], LIMIT))
        for items in rng.integers(0, 2_810, (200, ITEMS)).tolist()
    ]
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'users':>10} {'us/event':>9} {'CPU us':>7} {'on disk':>9} {'memory':>9}")
    with tempfile.TemporaryDirectory() as folder:
        store, filled = Store(Path(folder) / "s", {"of": "bench"}, StoreMemory()), 0
        for users in sorted(options.users):
            while filled < users:
                block = range(filled, min(filled + 10_000, users))
                store.write({key(user): samples[user % len(samples)] for user in block})
                filled = block.stop
            seconds, cpu = [], []
            for number in range(options.batches):
                batch = [key(user) for user in rng.integers(0, users, BATCH).tolist()]
                began, spent = time.perf_counter(), time.process_time()
                changed = {}
                for user, value in zip(batch, store.get_many(batch), strict=True):
                    assert value is not None
                    entry = Entry(NOW + 1000 + number, f"i{number}", 1.0)
                    changed[user] = codec.encode(merge_entries(codec.decode(value), [entry], LIMIT))
                store.write(changed, next_offset=number)
                seconds.append(time.perf_counter() - began)
                cpu.append(time.process_time() - spent)
            per_event = 1e6 * float(np.median(seconds)) / BATCH
            print(
                f"{users:10,} {per_event:9.1f} {1e6 * float(np.median(cpu)) / BATCH:7.1f}"
                f" {store.bytes_on_disk() / 2**20:5,.0f} MiB {process.memory_info().rss / 2**20:5,.0f} MiB",
                flush=True,
            )
        store.close()


if __name__ == "__main__":
    main()
