"""Whatever happens to an updater, histories end as the exact merge of all accepted events.

Each test does something terrible to real processes on a real Kafka and then compares three things: the histories in
RocksDB, the histories a restore would read from the topic, and the merge computed the plain way.
"""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kafka import KafkaProducer

from ops.local.broker import BrokerConfig, LocalBroker
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.demo.audit import last_values
from stream.updater.checkpoint import CRASH_POINTS
from stream.wire.topics import TopicPlan
from tests.support.arena import Arena, background, under_load

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(240)]

long = pytest.mark.long


@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=[] if point == "committed" else long) for point in CRASH_POINTS]
)
def test_killed_at_any_point_of_the_loop(point: str, arena: Arena) -> None:
    arena.send(100)
    doomed = arena.worker(point=point, nth=2)
    while doomed.process.poll() is None:
        arena.send(20)
        time.sleep(0.1)
    assert doomed.process.returncode == -signal.SIGKILL, "\n".join(doomed.lines)
    arena.send(100)
    successor = arena.worker()
    arena.until_caught_up()
    assert successor.stop() == 0
    arena.check("w")


def test_a_paused_worker_that_wakes_after_its_session_overwrites_nothing(arena: Arena) -> None:
    sleeper = arena.worker("sleeper", checkpoint_seconds=30, session_seconds=3).wait_ready()
    arena.send(200)
    time.sleep(1.5)  # it has merged them and holds them in memory, far from its checkpoint
    sleeper.signal(signal.SIGSTOP)
    other = arena.worker("other", session_seconds=3)
    arena.send(200)
    arena.until_caught_up()
    sleeper.signal(signal.SIGCONT)
    arena.send(100)
    arena.until_caught_up()
    sleeper.stop()
    arena.until_caught_up()
    assert other.stop() == 0
    arena.check()


@long
def test_a_worker_paused_inside_its_transaction_commits_nothing_of_it(arena: Arena) -> None:
    arena.send(100)
    sleeper = arena.worker("sleeper", session_seconds=3, point="produced", nth=2, signal=signal.SIGSTOP)
    while psutil.Process(sleeper.process.pid).status() != psutil.STATUS_STOPPED:
        arena.send(20)
        time.sleep(0.1)
    other = arena.worker("other", session_seconds=3)
    arena.send(200)
    arena.until_caught_up()  # as soon as the brokers have aborted the transaction
    sleeper.signal(signal.SIGCONT)
    assert sleeper.process.wait(30) != 0  # fenced: it gives up, for its supervisor to start it again
    arena.send(100)
    arena.until_caught_up()
    assert other.stop() == 0
    arena.check()


@long
def test_the_broker_dies_under_load_and_comes_back(plan: TopicPlan, tmp_path: Path) -> None:
    with LocalBroker(BrokerConfig(data_dir=tmp_path / "kafka")) as broker:
        arena = Arena(KafkaConnection(broker.bootstrap_servers), plan, tmp_path)
        try:
            arena.worker().wait_ready()
            arena.send(200)
            load = background(lambda: arena.send(1500))
            time.sleep(0.3)
            broker.kill()
            time.sleep(1)
            broker.start()
            load.join()
            arena.until_caught_up(revive=True)
            assert arena.workers[-1].stop() == 0
            arena.check("w")
        finally:
            arena.close()


def test_sigterm_with_the_broker_gone_ends_in_time(plan: TopicPlan, tmp_path: Path) -> None:
    with LocalBroker(BrokerConfig(data_dir=tmp_path / "kafka")) as broker:
        arena = Arena(KafkaConnection(broker.bootstrap_servers), plan, tmp_path)
        try:
            worker = arena.worker().wait_ready()
            arena.send(200)
            broker.kill()
            began = time.monotonic()
            worker.stop(15)
            assert time.monotonic() - began < 10
            broker.start()
            successor = arena.worker()
            arena.until_caught_up()
            assert successor.stop() == 0
            arena.check("w")
        finally:
            arena.close()


@long
def test_a_stale_store_is_brought_level(arena: Arena) -> None:
    arena.send(150)
    first = arena.worker()
    arena.until_caught_up()
    assert first.stop() == 0
    shutil.copytree(arena.folder / "w", arena.folder / "old")
    arena.send(150)
    second = arena.worker()
    arena.until_caught_up()
    assert second.stop() == 0
    shutil.rmtree(arena.folder / "w")
    (arena.folder / "old").rename(arena.folder / "w")
    arena.send(50)
    third = arena.worker()
    arena.until_caught_up()
    assert third.stop() == 0
    arena.check("w")


def test_flipped_bits_in_a_store_are_noticed_and_rebuilt(arena: Arena) -> None:
    arena.send(300)
    first = arena.worker()
    arena.until_caught_up()
    assert first.stop() == 0
    kept = (arena.folder / "w" / "histories").rglob("*")
    damaged = [file for file in kept if file.suffix in (".sst", ".log") and file.stat().st_size]
    assert damaged
    for file in damaged:
        content = bytearray(file.read_bytes())
        for place in range(len(content) // 3, len(content), 97):
            content[place] ^= 0xFF
        file.write_bytes(content)
    arena.send(100)
    arena.worker()
    arena.until_caught_up(revive=True)  # one that meets the damage while working gives up, its successor rebuilds
    assert arena.workers[-1].stop() == 0
    arena.check("w")


@long
def test_a_recreated_topic_is_not_mixed_with_the_old_stores(arena: Arena) -> None:
    arena.send(150)
    first = arena.worker()
    arena.until_caught_up()
    assert first.stop() == 0
    admin = admin_client(arena.kafka)
    for topic in (arena.plan.histories, arena.plan.interactions, arena.plan.dead_letters):
        admin.delete_topics([topic])
    admin.delete_groups([f"{arena.plan.prefix}freshet-updater"])
    while set(admin.list_topics()) & {arena.plan.histories, arena.plan.interactions, arena.plan.dead_letters}:
        time.sleep(0.2)
    admin.close()
    arena.events.clear()
    arena.broken = 0
    arena.make_topics()
    arena.producer.close()
    arena.producer = KafkaProducer(**arena.kafka.kafka_python(), linger_ms=2)
    arena.send(100)
    second = arena.worker()
    arena.until_caught_up()
    assert second.stop() == 0
    arena.check("w")


@long
def test_a_deleted_folder_is_rebuilt(arena: Arena) -> None:
    arena.send(150)
    first = arena.worker()
    arena.until_caught_up()
    assert first.stop() == 0
    shutil.rmtree(arena.folder / "w")
    arena.send(50)
    second = arena.worker()
    arena.until_caught_up()
    assert second.stop() == 0
    arena.check("w")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Eight megabytes of their own."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@long
def test_a_full_disk_is_named_and_costs_nothing_but_time(
    small_disk: Path, kafka: KafkaConnection, plan: TopicPlan
) -> None:
    arena = Arena(kafka, plan, small_disk)
    try:
        worker = arena.worker().wait_ready()
        arena.send(100)
        arena.until_caught_up()
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
        while worker.process.poll() is None:
            arena.send(100)
        assert worker.process.returncode == 1
        assert any("Is the disk full?" in line for line in worker.lines), "\n".join(worker.lines)
        ballast.unlink()
        arena.send(50)
        successor = arena.worker()
        arena.until_caught_up()
        assert successor.stop() == 0
        arena.check("w")
    finally:
        arena.close()


@long
def test_workers_join_and_leave_under_load(arena: Arena) -> None:
    one = arena.worker("one").wait_ready()
    with under_load(arena):
        two = arena.worker("two").wait_ready()
        time.sleep(2)
        assert one.stop() == 0
        three = arena.worker("one").wait_ready()  # the same name and folder again
        time.sleep(2)
        two.signal(signal.SIGKILL)
        time.sleep(1)
    arena.until_caught_up()
    assert three.stop() == 0
    arena.check()


@long
@pytest.mark.parametrize("seed", range(2))
def test_a_storm_of_joins_leaves_kills_and_pauses(arena: Arena, seed: int) -> None:
    rng = random.Random(seed)
    crew = {"one": arena.worker("one", session_seconds=6).wait_ready()}
    crew |= {name: arena.worker(name, session_seconds=6) for name in ("two", "three")}
    with under_load(arena):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            name = rng.choice(list(crew))
            what = rng.choice(["leave", "leave", "kill", "pause briefly", "pause past the session"])
            if what == "leave":
                crew[name].signal(signal.SIGTERM)
            elif what == "kill":
                crew[name].signal(signal.SIGKILL)
            else:
                crew[name].signal(signal.SIGSTOP)
                time.sleep(1 if what == "pause briefly" else 8)
                crew[name].signal(signal.SIGCONT)
            time.sleep(rng.uniform(0, 2))
            for name, worker in crew.items():  # as their supervisor would
                if worker.process.poll() is not None:
                    crew[name] = arena.worker(name, session_seconds=6)
    arena.until_caught_up(revive=True)
    for worker in crew.values():
        if worker.process.poll() is None:
            worker.stop()
    arena.check()


def scorer(arena: Arena, name: str) -> subprocess.Popen[bytes]:
    command = [
        *(sys.executable, "-m", "stream.cli", "--log-level", "warning", "scorer", "--device", "cpu"),
        *("--prefix", arena.plan.prefix, "--partitions", str(arena.plan.partitions), "--metrics-port", "0"),
        *("--state-dir", str(arena.folder / name), "--session-seconds", "6"),
    ]
    environment = {**os.environ, "FRESHET_BOOTSTRAP_SERVERS": arena.kafka.bootstrap_servers}
    return subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment)


def newest_listed(arena: Arena) -> dict[str, int]:
    """By user, the event time of the newest interaction that the published list knows."""
    return {
        user.decode(): json.loads(value)["as_of"]
        for user, value in last_values(arena.kafka, arena.plan.recommendations).items()
    }


@long
def test_two_updaters_and_two_scorers_share_eight_partitions_and_survive_each_other(
    kafka: KafkaConnection, prefix: str, tmp_path: Path
) -> None:
    arena = Arena(kafka, TopicPlan(prefix, partitions=8), tmp_path)
    scorers = [scorer(arena, "scorer-0"), scorer(arena, "scorer-1")]
    try:
        one, two = arena.worker("one").wait_ready(), arena.worker("two").wait_ready()
        with under_load(arena):
            time.sleep(3)
            one.signal(signal.SIGKILL)
            scorers[0].kill()
            time.sleep(1)
            scorers.append(scorer(arena, "scorer-0"))
            again = arena.worker("one").wait_ready()
            time.sleep(2)
        arena.until_caught_up()
        expected = {user: history.newest_ms for user, history in arena.expected().items()}
        deadline = time.monotonic() + 90
        while (listed := newest_listed(arena)) != expected:
            assert time.monotonic() < deadline, sorted(set(expected.items()) - set(listed.items()))[:5]
            time.sleep(0.5)
        assert [two.stop(), again.stop()] == [0, 0]
        for process in scorers[1:]:
            process.terminate()
        codes = {process.wait(20) for process in scorers[1:]}
        assert codes <= {0, -signal.SIGTERM}  # the second when it had not come up again yet
        arena.check()
    finally:
        for process in scorers:
            process.kill()
            process.wait()
        arena.close()
