"""What an event costs as the store grows: read, merge and write a batch of users, from ten thousand to five million.

    python tests/benchmarks/bench_state_size.py [--users 10000 100000 1000000 5000000]

A store per size, with the default memory settings and 20 items per user, all open at once: their batches take turns, so
that every size meets the same moments of a shared machine. The order of users is random, so a store is read everywhere;
`busy` is the processor's time, RocksDB's compactions included. Memory is what the process gained with the store.
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
    parser.add_argument("--batches", type=int, default=100)
    options = parser.parse_args()
    rng, process = np.random.default_rng(0), psutil.Process()
    samples = [
        codec.encode(merge_entries(EMPTY, [Entry(NOW + n, f"i{i}", 1.0) for n, i in enumerate(items)], LIMIT))
        for items in rng.integers(0, 2_810, (200, ITEMS)).tolist()
    ]
    sizes = sorted(options.users)
    with tempfile.TemporaryDirectory() as folder:
        stores, gained = {}, {}
        for users in sizes:
            before = process.memory_info().rss
            store = stores[users] = Store(Path(folder) / str(users), {"of": "bench"}, StoreMemory())
            for first in range(0, users, 10_000):
                block = range(first, min(first + 10_000, users))
                store.write({key(user): samples[user % len(samples)] for user in block})
            store.get_many([key(user) for user in rng.integers(0, users, 100_000).tolist()])
            gained[users] = process.memory_info().rss - before
            print(f"  {users:,} users are in their store", flush=True)
        took = {users: np.empty((options.batches, 4)) for users in sizes}  # read, merge, write, busy
        for number in range(options.batches):
            for users, store in stores.items():
                batch = [key(user) for user in rng.integers(0, users, BATCH).tolist()]
                busy, times = time.process_time(), [time.perf_counter()]
                values = store.get_many(batch)
                times.append(time.perf_counter())
                changed = {}
                for user, value in zip(batch, values, strict=True):
                    assert value is not None
                    entry = Entry(NOW + 1000 + number, f"i{number}", 1.0)
                    changed[user] = codec.encode(merge_entries(codec.decode(value), [entry], LIMIT))
                times.append(time.perf_counter())
                store.write(changed, next_offset=number)
                times.append(time.perf_counter())
                took[users][number] = *np.diff(times), time.process_time() - busy
        print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; us per event, medians")
        print(f"{'users':>10} {'event':>6} {'ratio':>6} {'read':>6} {'merge':>6} {'write':>6} {'busy':>6}", end=" ")
        print(f"{'on disk':>10} {'memory':>9}")
        smallest = np.median(took[sizes[0]][:, :3].sum(1))
        for users, store in stores.items():
            event = np.median(took[users][:, :3].sum(1))
            read, merge, write, busy = 1e6 * np.median(took[users], axis=0) / BATCH
            print(
                f"{users:10,} {1e6 * event / BATCH:6.1f} {event / smallest:6.2f} {read:6.1f} {merge:6.1f} {write:6.1f}"
                f" {busy:6.1f} {store.bytes_on_disk() / 2**20:6,.0f} MiB {gained[users] / 2**20:5,.0f} MiB"
            )
            store.close()


if __name__ == "__main__":
    main()
