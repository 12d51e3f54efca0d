"""Event to recommendation, as a client sees it: from handing an event to its producer to holding the user's new list.

A real Kafka, the three processes, a simulated world and the observing client share this machine. Measuring starts when
a model is live and its first minute is over; every event must be answered.

    python tests/benchmarks/bench_stream_latency.py --rate 200 --seconds 60
"""

import argparse
import os
import platform
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from kafka.admin import KafkaAdminClient

from ops.broker import LocalBroker
from ops.connection import KafkaConnection
from stream.observer import Observer
from stream.pipeline import Pipeline, PipelineConfig
from stream.scrape import scrape
from stream.simulate import World, WorldConfig, as_interaction
from stream.sources import InteractionSink, Outbox, Pacer, as_record
from stream.topics import ensure_topics

QUANTILES = (0.5, 0.9, 0.99, 0.999)
EDGES_MS = (5, 10, 20, 30, 40, 50, 75, 100, 150, 250, 500, 1000, 5000)


def hardware() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    return f"{os.cpu_count()} cores, {named}; Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200.0, help="events per second")
    parser.add_argument("--seconds", type=float, default=60.0, help="measured, after the warm-up")
    parser.add_argument("--warm-up", type=float, default=45.0, help="seconds at most until a model is live")
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--round-seconds", type=float, default=30.0, help="between fine-tuning rounds")
    options = parser.parse_args()

    stop = threading.Event()
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        connection = KafkaConnection(broker.bootstrap_servers)
        trainer = (
            *("--round-seconds", str(options.round_seconds), "--threads", "1"),
            *("--first-users", "50", "--first-interactions", "1500", "--first-epochs", "10", "--first-updates", "100"),
        )
        config = PipelineConfig(Path(folder), broker.bootstrap_servers, trainer_options=trainer)
        admin = KafkaAdminClient(**connection.kafka_python())
        ensure_topics(admin, config.plan)
        admin.close()
        lines: list[str] = []
        pipeline = Pipeline(config, lambda name, line: lines.append(f"{name} {line}"))
        runner = threading.Thread(target=pipeline.run, args=(stop,))
        runner.start()
        observer = Observer(connection, config.plan.recommendations)
        try:
            while (seen := scrape(pipeline.metrics_urls)).down or seen.waiting():
                time.sleep(0.5)
            world = World(WorldConfig(users=options.users, items=options.items), np.random.default_rng(0))
            with InteractionSink(connection, config.plan.interactions) as sink:
                outbox, pacer, sent, measured_from = Outbox(sink), Pacer(stop), 0, None
                while measured_from is None or pacer.elapsed < measured_from + options.seconds:
                    pacer.wait(sent / options.rate, outbox.collect)
                    interaction = as_interaction(world.event(), time.time_ns() // 1_000_000)
                    observer.sent(interaction.user, interaction.timestamp)
                    outbox.send(*as_record(interaction))
                    sent += 1
                    if measured_from is None and (observer.models or pacer.elapsed > options.warm_up):
                        measured_from, before = pacer.elapsed, len(observer.latencies)
                outbox.drain()
                seconds = pacer.elapsed
            deadline = time.monotonic() + 10
            while observer.unanswered and time.monotonic() < deadline:
                time.sleep(0.1)
            applied = scrape(pipeline.metrics_urls).total("freshet_events_applied_total")
        finally:
            stop.set()
            runner.join()
            observer.close()
    latencies = np.array(observer.latencies[before:]) * 1000
    print(hardware())
    print(f"{sent:,} events at {sent / seconds:,.0f}/s, {applied:,.0f} merged, {observer.lists:,} lists,", end=" ")
    print(f"{len(observer.models)} models taken live, {observer.unanswered} events unanswered")
    print(
        "  ".join(f"p{100 * q:g} {np.quantile(latencies, q):.0f} ms" for q in QUANTILES),
        f"  max {latencies.max():.0f} ms",
    )
    counts, _ = np.histogram(latencies, [0, *EDGES_MS, np.inf])
    for edge, count in zip([*EDGES_MS, np.inf], counts, strict=True):
        print(f"  up to {edge:>5g} ms {count:>9,}  {'#' * int(60 * count / max(counts.max(), 1))}")


if __name__ == "__main__":
    main()
