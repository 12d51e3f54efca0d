"""The updater beside the same job as a Faust agent with a RocksDB table and as a stateful Quix Streams application.

The job: interactions in, merged histories durable in RocksDB and on a changelog, a refresh out for every change. All
three decode, merge and encode with the same functions and commit every second, on one broker, in turn, several times.

    python tests/benchmarks/bench_stream_updater.py [--events 100000] [--users 5000] [--rounds 3]

Each has started, and is paused while its backlog is written: the clock runs from its waking to the last committed
offset, so that all work for all events is within. `per core` divides by the CPU time the process took meanwhile, so it
holds on a busy machine too. Quix Streams needs other versions of shared dependencies: it gets an environment of its
own, made once in the cache folder.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream.clients.connection import KafkaConnection
    from stream.wire.topics import TopicPlan

ROOT = Path(__file__).parents[2]
ITEMS, PARTITIONS, LIMIT = 2_810, 2, 200
QUIX = ("quixstreams==3.28.1", "msgspec")
NOW = 1_700_000_000_000
WARM_UP = 200  # events


def job(key: bytes, value: bytes, arrived_ms: int, stored: bytes | None) -> tuple[bytes, bytes] | None:
    """The history and the refresh that follow from one record; None when nothing changed."""
    from state import codec
    from state.history import EMPTY, Entry, merge_entries
    from stream.wire.records import Limits, NewInteraction, Refresh, decode_interaction

    event: Any = decode_interaction(key, value, arrived_ms, Limits())  # an Interaction: nobody asks to be forgotten
    before = EMPTY if stored is None else codec.decode(stored)
    after = merge_entries(before, (Entry(event.timestamp, event.item, event.weight, event.event),), LIMIT)
    if after is before:
        return None
    history = codec.encode(after)
    new = (NewInteraction(event.item, event.timestamp, event.item in before.items),)
    return history, Refresh("event", arrived_ms, new, history).encode()


def faust_worker(servers: str, prefix: str, folder: str) -> None:
    import faust as library

    faust: Any = library  # the stubs have the calls of Freshet itself
    app = faust.App(
        prefix + "faust",
        broker=f"aiokafka://{servers}",
        store="rocksdb://",
        datadir=folder,
        topic_partitions=PARTITIONS,
        broker_commit_interval=1.0,
        producer_linger=0.005,
        table_standby_replicas=0,
        web_enabled=False,
    )
    raw = {"key_serializer": "raw", "value_serializer": "raw"}
    interactions = app.topic(prefix + "interactions", **raw)
    refreshes = app.topic(prefix + "refreshes", **raw)
    options = {"driver": "rocksdict"}
    table = app.Table("histories", partitions=PARTITIONS, options=options, key_type=bytes, value_type=bytes)

    @app.agent(interactions)
    async def update(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            done = job(event.key, event.value, int(message.timestamp * 1000), table.get(event.key))
            if done is not None:
                table[event.key] = done[0]
                await refreshes.send(key=event.key, value=done[1])

    faust.Worker(app, loglevel="WARN").execute_from_commandline()


def quix_worker(servers: str, prefix: str, folder: str) -> None:
    from quixstreams import Application  # type: ignore[import-not-found]  # in an environment of its own

    app = Application(
        servers,
        consumer_group=prefix + "quix",
        auto_offset_reset="earliest",
        state_dir=folder,
        commit_interval=1.0,
        loglevel="WARNING",
        auto_create_topics=True,
        producer_extra_config={"linger.ms": 5},
    )
    interactions = app.topic(prefix + "interactions", key_deserializer="bytes", value_deserializer="bytes")
    refreshes = app.topic(prefix + "refreshes", key_serializer="bytes", value_serializer="bytes")

    def update(value: bytes, key: bytes, timestamp: int, headers: Any, state: Any) -> bytes | None:
        done = job(key, value, timestamp, state.get_bytes("history"))
        if done is None:
            return None
        state.set_bytes("history", done[0])
        return done[1]

    frame = app.dataframe(interactions).apply(update, stateful=True, metadata=True)
    frame.filter(lambda refresh: refresh is not None).to_topic(refreshes)
    app.run()


def quix_python() -> Path:
    cache = Path(os.environ.get("FRESHET_CACHE") or Path.home() / ".cache" / "freshet") / "bench-quix"
    python = cache / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(cache)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *QUIX, "kafka-python==3.0.12"], check=True)
    return python


def commands(servers: str, prefix: str, folder: str) -> dict[str, tuple[str, list[str]]]:
    """By contestant: its consumer group and its command."""
    me = str(Path(__file__).resolve())
    freshet = [*("-m", "stream.cli", "--log-level", "warning", "updater", "--bootstrap-servers", servers)]
    freshet += ["--prefix", prefix, "--partitions", str(PARTITIONS), "--state-dir", folder, "--metrics-port", "0"]
    worker = [me, "--worker", json.dumps([servers, prefix, folder])]
    return {
        "freshet": (prefix + "freshet-updater", [sys.executable, *freshet]),
        "quix": (prefix + "quix", [str(quix_python()), *worker, "--as", "quix"]),
        "faust": (prefix + "faust", [sys.executable, *worker, "--as", "faust"]),
    }


def fill(connection: "KafkaConnection", plan: "TopicPlan", count: int, users: int) -> None:
    import numpy as np
    from kafka import KafkaProducer

    rng = np.random.default_rng(0)
    who = (users * rng.random(count) ** 2).astype(int).tolist()
    items = rng.integers(0, ITEMS, count).tolist()
    producer = KafkaProducer(**connection.kafka_python(), linger_ms=20, batch_size=256 * 1024)
    for n, (user, item) in enumerate(zip(who, items, strict=True)):
        value = {"user": f"u{user}", "item": f"i{item}", "timestamp": NOW + n}
        producer.send(
            plan.interactions, json.dumps(value).encode(), key=b"u%d" % user, partition=user % plan.partitions
        )
    producer.flush()
    producer.close()


def measure(
    connection: "KafkaConnection", name: str, prefix: str, count: int, users: int
) -> tuple[float, float, float]:
    """Events per second, events per second of CPU, and resident MiB at the end."""
    import psutil

    from stream.clients.admin import admin_client
    from stream.demo.audit import records_taken
    from stream.wire.topics import TopicPlan, ensure_topics

    plan = TopicPlan(prefix, PARTITIONS)
    ensure_topics(connection, plan)
    admin = admin_client(connection)
    with tempfile.TemporaryDirectory() as folder:
        group, command = commands(connection.bootstrap_servers, prefix, folder)[name]
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        watched = psutil.Process(process.pid)

        def until_taken(total: int) -> None:
            while True:
                if process.poll() is not None:
                    raise SystemExit(f"{name} ended with {process.returncode}")
                try:
                    if records_taken(admin, group, plan.interactions) >= total:
                        return
                except Exception:  # the group is not there yet  # noqa: BLE001
                    pass
                time.sleep(0.05)

        try:
            fill(connection, plan, WARM_UP, users)
            until_taken(WARM_UP)
            watched.suspend()
            fill(connection, plan, count, users)
            before, began = sum(watched.cpu_times()[:2]), time.perf_counter()
            watched.resume()
            until_taken(WARM_UP + count)
            seconds, spent = time.perf_counter() - began, sum(watched.cpu_times()[:2]) - before
            return count / seconds, count / spent, watched.memory_info().rss / 2**20
        finally:
            process.kill()
            process.wait()
            admin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["freshet", "quix", "faust"])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--as", dest="kind", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.worker:
        sys.argv = [sys.argv[0], *rest]
        return {"faust": faust_worker, "quix": quix_worker}[options.kind](*json.loads(options.worker))

    from ops.local.broker import LocalBroker
    from stream.clients.connection import KafkaConnection

    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {sys.version[:7]}")
    print(f"{options.events:,} events of {options.users:,} users, {ITEMS:,} items, {PARTITIONS} partitions; medians")
    figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in options.only}
    with LocalBroker() as broker:
        connection = KafkaConnection(broker.bootstrap_servers)
        for number in range(options.rounds):
            for name in options.only:
                figures[name].append(measure(connection, name, f"{name}-{number}-", options.events, options.users))
                rate, per_core, _ = figures[name][-1]
                print(f"  round {number + 1}: {name} {rate:,.0f}/s, {per_core:,.0f}/s per core", flush=True)
    medians = {
        name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in figures.items()
    }
    for name, (rate, per_core, resident) in medians.items():
        print(f"{name:>8} {rate:10,.0f} events/s {per_core:10,.0f} per core {resident:8,.0f} MiB", end="")
        ours = medians.get("freshet", medians[name])
        print(f"   freshet is {ours[0] / rate:.1f}x, {ours[1] / per_core:.1f}x per core")
    return None


if __name__ == "__main__":
    main()
