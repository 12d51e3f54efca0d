"""Several instances share the users: whatever happens to them, an answer is right or it is a 503 that says when to come
again. Lists change all the time meanwhile, and every answer is compared with what had been published by then."""

import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.local.broker import LocalBroker
from stream.clients.connection import KafkaConnection
from stream.wire.topics import TopicPlan, ensure_topics
from tests.support.api import ApiProcess, Instance, Writer, until

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(240)]

USERS = [f"u{n}" for n in range(60)]
SLACK_SECONDS = 0.75  # of a busy machine


class World:
    """Publishes ever newer lists, and asks for them at random instances."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan, folder: Path) -> None:
        self._kafka, self._plan, self._folder = kafka, plan, folder
        self.stale_seconds = 1.0
        self.instances: list[ApiProcess] = []
        self.asked: list[Instance] = []  # of these, the readers ask any
        self.wrong: list[str] = []
        self.statuses: Counter[int] = Counter()  # since `begin`
        self._writer = Writer(kafka, plan)
        self._published: dict[str, list[tuple[float, int]]] = {user: [] for user in USERS}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def publish(self, user: str) -> None:
        version = len(self._published[user]) + 1
        self._writer.list_of(user, [f"{user}-{version}"], as_of=version)
        self._published[user].append((time.monotonic(), version))

    def start(self, name: str) -> ApiProcess:
        options = ("--stale-seconds", str(self.stale_seconds), "--drain-seconds", "10")
        instance = ApiProcess(self._kafka, self._plan, self._folder / name, *options)
        self.instances.append(instance)
        instance.until_ready()
        return instance

    def run(self) -> None:
        for work in (self._write, self._read, self._read):
            thread = threading.Thread(target=work)
            thread.start()
            self._threads.append(thread)

    def _write(self) -> None:
        rng = random.Random(1)
        while not self._stop.wait(0.005):
            self.publish(rng.choice(USERS))

    def _read(self) -> None:
        rng = random.Random(threading.get_ident())
        while not self._stop.wait(0.002):
            if self.asked:
                try:
                    self.check(rng.choice(self.asked), rng.choice(USERS))
                except OSError:  # the instance is gone
                    self.statuses[0] += 1

    def check(self, instance: Instance, user: str) -> int:
        """Ask once; anything but the truth is noted."""
        began = time.monotonic()
        before = began - self.stale_seconds - SLACK_SECONDS
        oldest = max((n for at, n in self._published[user] if at < before), default=0)
        answer = instance.ask(f"/v1/users/{user}/recommendations")
        self.statuses[answer.status] += 1
        if answer.status == 503:
            print(f"503 of {user}: {answer.json['detail']}")
            if "retry-after" not in answer.headers:
                self.wrong.append(f"503 without Retry-After: {answer.body!r}")
        elif answer.status != 200:
            self.wrong.append(f"{answer.status}: {answer.body!r}")
        else:
            found = answer.json
            right = found["user"] == user and found["known"] and found["as_of"] >= oldest
            if not right or found["items"][0]["item"] != f"{user}-{found['as_of']}":
                self.wrong.append(f"{user} at version {oldest} or later, got {found}")
        return answer.status

    def begin(self) -> None:
        self.statuses.clear()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        self._writer.close()
        for instance in self.instances:
            instance.end()
        print("\n".join(f"{i} | {line}" for i, one in enumerate(self.instances) for line in one.lines[-30:]))


@pytest.fixture
def plan(prefix: str) -> TopicPlan:
    return TopicPlan(prefix=prefix, partitions=6)


@pytest.fixture
def world(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> Iterator[World]:
    world = World(kafka, topics, tmp_path)
    for user in USERS:
        world.publish(user)
    yield world
    world.end()
    assert world.wrong == []


def holds(instance: Instance) -> int:
    """Partitions of which the instance has complete copies."""
    page = instance.ask("/metrics").body.decode()
    return int(float(re.findall(r'api_partitions\{state="serving"\} (\S+)', page)[0]))


def answers_for_all(world: World, instance: Instance) -> Callable[[], bool]:
    return lambda: all(world.check(instance, user) == 200 for user in USERS)


def test_instances_that_come_and_go_leave_no_gap(world: World) -> None:
    world.stale_seconds = 5.0  # nobody shall be silent here only because the machine is busy
    first = world.start("first")
    world.asked = [first]
    world.run()
    second = world.start("second")
    until(answers_for_all(world, second), "answers for everybody")
    world.asked = [first, second]
    time.sleep(1.0)
    world.begin()
    third = world.start("third")
    until(answers_for_all(world, third), "answers for everybody")
    world.asked = [first, second, third]
    time.sleep(2.0)
    world.asked = [second, third]
    first.signal(signal.SIGTERM)
    assert first.process.wait(30) == 0
    time.sleep(2.0)
    assert set(world.statuses) == {200}, world.statuses
    assert world.statuses[200] > 500
    held = [
        line for line in second.ask("/metrics").body.decode().splitlines() if 'api_partitions{state="serving"}' in line
    ]
    assert held


def test_a_killed_instance_costs_a_503_and_never_a_wrong_list(world: World) -> None:
    first, second = world.start("first"), world.start("second")
    until(answers_for_all(world, second), "answers for everybody")
    until(lambda: any("is let go" in line for line in first.lines), "the second holding its share", 60)
    world.asked = [first]
    world.run()
    time.sleep(1.0)
    world.begin()
    second.signal(signal.SIGKILL)
    second.process.wait()
    until(lambda: world.statuses[503], "a user of the killed one")
    until(answers_for_all(world, first), "taking everybody over")
    again = world.start("second")  # its copies are where it left them
    until(answers_for_all(world, again), "answers for everybody")
    assert set(world.statuses) <= {200, 503}, world.statuses


def test_an_instance_that_slept_shows_nothing_old(world: World) -> None:
    first, second = world.start("first"), world.start("second")
    until(answers_for_all(world, second), "answers for everybody")
    world.asked = [second]
    world.run()
    first.signal(signal.SIGSTOP)
    until(answers_for_all(world, second), "taking everybody over", 60)
    time.sleep(1.0)
    waiting = [threading.Thread(target=world.check, args=(first, user)) for user in USERS[:20]]
    for thread in waiting:  # they are in its queue when it wakes
        thread.start()
    time.sleep(0.5)
    first.signal(signal.SIGCONT)
    for thread in waiting:
        thread.join(20)
    world.asked = [first, second]
    until(answers_for_all(world, first), "coming back", 60)
    time.sleep(2.0)


def test_while_kafka_is_away_nothing_is_shown_that_may_be_old_and_events_are_not_lost_silently(
    prefix: str, tmp_path: Path
) -> None:
    with LocalBroker() as broker:
        kafka, plan = KafkaConnection(broker.bootstrap_servers), TopicPlan(prefix=prefix, partitions=2)
        ensure_topics(kafka, plan)
        world = World(kafka, plan, tmp_path)
        try:
            for user in USERS:
                world.publish(user)
            instance = world.start("only")
            until(answers_for_all(world, instance), "answers for everybody")
            broker.kill()
            until(lambda: world.check(instance, "u1") == 503, "the copies getting old")
            assert instance.ask("/healthz").status == 200 and instance.ask("/readyz").status == 503
            event = {"user": "ann", "item": "tea"}
            answer = instance.ask("/v1/events", "POST", [event, {"user": "x"}])
            assert answer.status == 503 and answer.headers["retry-after"]
            assert (answer.json["accepted"], answer.json["refused"], answer.json["failed"]) == (0, 1, 1)
            assert instance.ask("/v1/users/ann", "DELETE").status == 503
            broker.start()
            until(answers_for_all(world, instance), "coming back", 60)
            until(lambda: instance.ask("/v1/events", "POST", event).status == 202, "taking events again")
            broker.kill()
            until(lambda: instance.ask("/readyz").status == 503, "noticing that Kafka is away again")
            began = time.monotonic()
            instance.signal(signal.SIGTERM)
            assert instance.process.wait(20) == 0
            assert time.monotonic() - began < 8  # what a supervisor waits
        finally:
            world.end()
        assert world.wrong == []
