"""Lists over HTTP, from two instances, while the pipeline works: how fast a list is read, and how soon after the POST
of an event the list that knows it can be read.

Reading is measured by vegeta, which sends at a constant rate whether or not answers come, so that a slow answer delays
no other request. It asks for random users at both instances in turn: half of the requests are passed on to the other
instance. At the same time events are posted, and their lists are asked for with the `as_of` of the receipt. Kafka, all
processes and both clients share this machine; vegeta may go first, where that is allowed. It begins when the first
model has made everybody's list.

    go install github.com/tsenart/vegeta/v12@latest
    python tests/benchmarks/bench_api.py --requests 500 --rate 200 --seconds 60
"""

import argparse
import asyncio
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import aiohttp
import numpy as np
import psutil
from confluent_kafka import Producer

from ops.local.broker import BrokerConfig, LocalBroker
from stream.clients.connection import KafkaConnection
from stream.demo.scrape import scrape
from stream.local.pipeline import Pipeline, PipelineConfig
from stream.sources.outbox import as_record
from stream.sources.simulate import World, WorldConfig, as_interaction
from stream.wire.topics import TopicPlan, ensure_topics

QUANTILES = (0.5, 0.9, 0.99, 0.999)


def vegeta() -> str:
    found = shutil.which("vegeta") or str(Path.home() / "go" / "bin" / "vegeta")
    if not Path(found).exists():
        sys.exit("vegeta is not installed: go install github.com/tsenart/vegeta/v12@latest")
    return found


def hardware() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, {named}; Python {platform.python_version()}; load before {load}"


def cpu_seconds(pipeline: Pipeline) -> dict[str, float]:
    """What each process has used, by name; this one sends the events, posts and reads back."""
    running = {child.process.pid: name for name, child in pipeline.supervisor.children.items() if child.process}
    used: dict[str, float] = defaultdict(float)
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            times = process.cpu_times()
            name = running.get(process.pid) or ("this benchmark" if process == this else process.name())
        except psutil.NoSuchProcess:
            continue
        used[name] += times.user + times.system
    return used


def send_events(servers: str, plan: TopicPlan, world: World, rate: float, stop: threading.Event) -> None:
    client = {"bootstrap.servers": servers, "log_level": 2, "linger.ms": 0, "partitioner": "murmur2_random"}
    producer, began, sent = Producer(client), time.monotonic(), 0
    while not stop.wait(max(began + sent / rate - time.monotonic(), 0)):
        key, value = as_record(as_interaction(world.event(), time.time_ns() // 1_000_000))
        producer.produce(plan.interactions, value, key)
        producer.poll(0)
        sent += 1
    producer.flush()


def first_in_line(pid: int) -> bool:
    """Let a process have a core as soon as it wants one: it is not to measure its own wait. Is that allowed?"""
    try:
        for thread in psutil.Process(pid).threads():
            os.setpriority(os.PRIO_PROCESS, thread.id, -15)  # threads that come later inherit it
    except PermissionError:
        return False
    return True


def until_rescored(pipeline: Pipeline, rate: float, deadline: float) -> bool:
    """A new model makes everybody's list again: wait until lists are made for events only. Was that reached?"""
    before = None
    while time.monotonic() < deadline:
        made = scrape(pipeline.metrics_urls).total("freshet_recommendations_published_total")
        if before is not None and made - before < 3 * 1.1 * rate:
            return True
        before = made
        time.sleep(3)
    return False


async def post_and_read(urls: list[str], users: int, seconds: float, per_second: float) -> tuple[list[float], int]:
    """Milliseconds from each POST to its readable list, and how many of them did not come in time."""
    found: list[float] = []
    late = 0

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        nonlocal late
        user, url = f"u{random.randrange(users)}", urls[number % len(urls)]
        began = time.perf_counter()
        event = {"user": user, "item": f"i{random.randrange(500)}", "event": "view"}
        async with session.post(f"{url}/v1/events", json=event) as answer:
            receipt = (await answer.json())["receipts"][0]
        read = f"{urls[(number + 1) % len(urls)]}/v1/users/{user}/recommendations?as_of={receipt['as_of']}"
        async with session.get(read) as answer:
            await answer.read()
            if answer.status == 200:
                found.append(1000 * (time.perf_counter() - began))
            else:
                late += 1

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
        began = time.monotonic()
        for number in range(int(seconds * per_second)):
            await asyncio.sleep(max(began + number / per_second - time.monotonic(), 0))
            tasks.create_task(one(session, number))
    return found, late


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500, help="reads per second, of both instances")
    parser.add_argument("--rate", type=float, default=200.0, help="events per second through the pipeline")
    parser.add_argument("--posts", type=float, default=10.0, help="events per second that are posted and read back")
    parser.add_argument("--seconds", type=float, default=60.0, help="measured, after the warm-up")
    parser.add_argument("--warm-up", type=float, default=60.0, help="longest wait for a model")
    parser.add_argument("--users", type=int, default=2000)
    options = parser.parse_args()

    program, machine = vegeta(), hardware()
    world = World(WorldConfig(users=options.users), np.random.default_rng(0))
    stop, ended = threading.Event(), threading.Event()
    with LocalBroker(BrokerConfig(optimise=True)) as broker, tempfile.TemporaryDirectory() as name:
        folder, plan = Path(name), TopicPlan()
        connection = KafkaConnection(broker.bootstrap_servers)
        ensure_topics(connection, plan)
        trainer = (
            *("--round-seconds", "120", "--threads", "1", "--first-users", "50", "--first-interactions", "1500"),
            *("--first-epochs", "10", "--first-updates", "100"),
        )
        pipeline = Pipeline(
            PipelineConfig(folder, apis=2),
            broker.bootstrap_servers,
            plan,
            lambda name, line: None,
            options={"trainer": trainer},
            usual_ports=False,
        )
        runner = threading.Thread(target=pipeline.run, args=(ended,))
        source = threading.Thread(target=send_events, args=(broker.bootstrap_servers, plan, world, options.rate, stop))
        runner.start()
        try:
            while (seen := scrape(pipeline.metrics_urls)).down or seen.waiting():
                time.sleep(0.5)
                if not runner.is_alive():
                    raise SystemExit("the pipeline ended before it was ready")
            source.start()
            deadline = time.monotonic() + options.warm_up
            while time.monotonic() < deadline and not seen.total("freshet_model_promotions_total"):
                time.sleep(0.5)
                seen = scrape(pipeline.metrics_urls)
            rescored = until_rescored(pipeline, options.rate, time.monotonic() + options.warm_up)
            rng, urls = random.Random(0), pipeline.api_urls
            targets = folder / "targets"
            users = [rng.randrange(options.users) for _ in range(20_000)]
            targets.write_text(
                "".join(f"GET {urls[n % 2]}/v1/users/u{user}/recommendations\n" for n, user in enumerate(users))
            )
            results = folder / "results"
            attack = subprocess.Popen(
                [
                    *(program, "attack", "-rate", str(options.requests), "-duration", f"{options.seconds:g}s"),
                    *("-targets", str(targets), "-output", str(results), "-timeout", "5s"),
                ]
            )
            ahead = first_in_line(attack.pid)
            before = cpu_seconds(pipeline)
            readable, late = asyncio.run(post_and_read(urls, options.users, options.seconds, options.posts))
            used = {name: now - before.get(name, 0.0) for name, now in cpu_seconds(pipeline).items()}
            attack.wait()
            seen = scrape(pipeline.metrics_urls)
            text = subprocess.run([program, "report", str(results)], capture_output=True, text=True, check=True).stdout
            histogram = subprocess.run(
                [program, "report", "-type=hdrplot", str(results)], capture_output=True, text=True, check=True
            ).stdout
        finally:
            stop.set()
            ended.set()
            runner.join()
            if source.ident is not None:
                source.join()
    print(f"{machine}, after {os.getloadavg()[0]:.1f}")
    models = seen.total("freshet_model_promotions_total")
    print(f"{options.requests} reads/s, {options.rate:g} events/s through the pipeline, {models:.0f} models")
    if not rescored:
        print("lists were still made for a new model when reading began")
    if not ahead:
        print("vegeta had to wait for a core like everybody else: run as root to measure the service alone")
    shares = ", ".join(f"{name} {100 * seconds / options.seconds:.0f} %" for name, seconds in used.items())
    print(f"of a core: {shares}")
    print(f"passed on to the other instance: {seen.total('freshet_api_forwarded_total', result='answered'):,.0f}")
    print(text.partition("Error Set")[0])
    print(histogram)
    shown = "  ".join(f"p{100 * q:g} {np.quantile(readable, q):.0f} ms" for q in QUANTILES) if readable else "none"
    print(f"POST of an event to its readable list ({len(readable)} events, {late} later than 2 s): {shown}")


if __name__ == "__main__":
    main()
