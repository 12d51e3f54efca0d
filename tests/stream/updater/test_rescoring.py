"""When another model goes live, stored histories are sent to the scorer again."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ops.metrics import UpdaterMetrics
from state import codec
from state.history import EMPTY, Entry, merge_entries
from state.store import Store
from stream.clients.connection import KafkaConnection
from stream.demo.audit import changelog_histories
from stream.registry.slots import SlotWriter
from stream.updater.config import UpdaterConfig
from stream.updater.cursor import RescoringCursor
from stream.updater.partition import PartitionTask
from stream.updater.rescoring import Rescoring, RescoringConfig
from stream.updater.worker import Updater
from stream.wire.records import Announcement, Refresh
from stream.wire.topics import TopicPlan
from tests.support.updating import applied, interaction, produce, read_all, running, until

DAY_MS = 86_400_000
NOW = 1_700_000_000_000


@pytest.fixture
def tasks(tmp_path: Path) -> Iterator[list[PartitionTask]]:
    """Two partitions; in each, u0 was last seen today, u1 yesterday, u2 the day before, ..."""
    tasks = [PartitionTask(number) for number in range(2)]
    for task in tasks:
        store = Store(tmp_path / f"store{task.number}", {"of": "test"})
        for n in range(10):
            history = merge_entries(EMPTY, [Entry(NOW - n * DAY_MS, "i", 1.0)], 20)
            store.write({b"u%d" % n: codec.encode(history)})
        task.restore(store, {})
        task.run({})
    yield tasks
    for task in tasks:
        task.release()


class World:
    """What `Rescoring` needs: a clock, a live model, and somebody to send to."""

    def __init__(self, config: RescoringConfig) -> None:
        self.now = 100.0
        self.live: Announcement | None = None
        self.live_offset = 7
        self.sent: list[tuple[int, bytes]] = []
        self.rescoring = Rescoring(config, self, self, lambda: NOW, clock=lambda: self.now)  # type: ignore[arg-type]

    def poll(self) -> bool:
        return False

    def promote(self, version: str) -> None:
        self.live = Announcement("live", version, "nowhere", "sha", "", NOW, NOW, 1)

    def send_stored(self, number: int, user: bytes, history: bytes, now_ms: int, live_offset: int) -> None:
        self.sent.append((number, user))
        assert live_offset == self.live_offset

    def pass_second(self, tasks: list[PartitionTask]) -> list[tuple[int, bytes]]:
        before = len(self.sent)
        self.now += 1.0
        self.rescoring.send_due(tasks, NOW)
        return self.sent[before:]


def test_a_walk_meets_every_active_user_once_at_the_rate_it_is_given(tasks: list[PartitionTask]) -> None:
    world = World(RescoringConfig(head_start_seconds=0, users_per_second=2, active_days=4.5))
    assert world.pass_second(tasks) == []  # there is no model
    world.promote("v2")
    seconds = 0
    while world.pass_second(tasks) or world.rescoring.walking:
        seconds += 1
    assert sorted(world.sent) == [(number, b"u%d" % n) for number in range(2) for n in range(5)]
    assert seconds >= 10  # 20 users are looked at
    assert all(task.unsaved.cursor.version == "v2" and task.unsaved.cursor.finished for task in tasks)
    assert world.pass_second(tasks) == []


def test_partitions_take_turns_and_none_waits_for_the_next_model(tasks: list[PartitionTask]) -> None:
    world = World(RescoringConfig(head_start_seconds=0, users_per_second=2))
    for version in range(10):  # each is live for two seconds, which is a turn of each partition
        world.promote(f"v{version}")
        for _ in range(2):
            world.pass_second(tasks)
    for number in range(2):
        assert {user for partition, user in world.sent if partition == number} == {b"u%d" % n for n in range(10)}


def test_the_log_counts_the_users_of_one_model(tasks: list[PartitionTask], caplog: pytest.LogCaptureFixture) -> None:
    world = World(RescoringConfig(head_start_seconds=0, users_per_second=2, active_days=100))
    caplog.set_level("INFO")
    for version, seconds in (("v1", 3), ("v2", 12)):
        world.promote(version)
        for _ in range(seconds):
            world.pass_second(tasks)
    assert [message for message in caplog.messages if "scored again" in message] == [
        "model v2: 20 active users are scored again"
    ]


def test_a_partition_that_comes_with_its_progress_is_walked_on(tasks: list[PartitionTask]) -> None:
    world = World(RescoringConfig(head_start_seconds=0))
    world.promote("v2")
    tasks[0].unsaved.cursor = RescoringCursor("v1").begin("v2").advance(tasks[0].store.page(b"", 7), 7)[1]
    tasks[1].unsaved.cursor = RescoringCursor("v2")
    for _ in range(5):
        world.pass_second(tasks)
    assert world.sent == [(0, b"u7"), (0, b"u8"), (0, b"u9")]


def test_a_walk_begins_when_scorers_have_had_time_to_load_the_model(tasks: list[PartitionTask]) -> None:
    world = World(RescoringConfig(head_start_seconds=3))
    for version in ("v2", "v3"):
        world.promote(version)
        assert [bool(world.pass_second(tasks)) for _ in range(4)] == [False, False, False, True]


@pytest.mark.kafka
def test_a_new_live_model_sends_everybody_again_but_who_was_forgotten(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    config = UpdaterConfig(tmp_path, checkpoint_seconds=3600)
    updater = Updater(config, kafka, plan, UpdaterMetrics(CollectorRegistry()))
    slots = SlotWriter(kafka, plan.models)
    try:
        produce(kafka, plan, [interaction(f"u{n}", "i", NOW + n) for n in range(10)])
        while len(changelog_histories(kafka, plan.histories)) < 10:
            updater.turn()
            updater.checkpoint()
        produce(kafka, plan, [(b"u3", None)])
        while reasons(kafka, plan).get("u3") != "forget":  # merged, and not yet in the store
            updater.turn()
            updater._refreshes._producer.flush()
        slots.put("live", Announcement("live", "v2", "nowhere", "sha", "v1", NOW, NOW, 1))
        while list(reasons(kafka, plan).values()).count("model") < 9 or updater._rescoring.walking:
            updater.turn()
            updater._refreshes._producer.flush()
        assert reasons(kafka, plan) == {f"u{n}": "forget" if n == 3 else "model" for n in range(10)}
    finally:
        slots.close()
        updater.close()


@pytest.mark.kafka
def test_a_model_that_goes_live_before_an_updater_has_its_partitions_reaches_their_users(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path
) -> None:
    with running(UpdaterConfig(tmp_path), kafka, topics) as metrics:
        produce(kafka, topics, [interaction(f"u{n}", "i", NOW + n) for n in range(10)])
        until(lambda: applied(metrics) == 10, "taking all events in")
    updater = Updater(UpdaterConfig(tmp_path), kafka, topics, UpdaterMetrics(CollectorRegistry()))
    slots = SlotWriter(kafka, topics.models)
    try:
        slots.put("live", Announcement("live", "v2", "nowhere", "sha", "v1", NOW, NOW, 1))
        while updater._rescoring._slots.live is None:
            updater._rescoring._slots.poll()
        updater._rescoring.send_due([], 0)  # as in a turn that ends before the group has answered
        deadline = time.monotonic() + 30
        while list(reasons(kafka, topics).values()).count("model") < 10:
            assert time.monotonic() < deadline, reasons(kafka, topics)
            updater.turn()
    finally:
        slots.close()
        updater.close()


def take_turns(updater: Updater, finished: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not finished():
        assert time.monotonic() < deadline
        updater.turn()


@pytest.mark.kafka
def test_a_walk_goes_on_after_a_restart_with_other_disks_and_under_the_next_model(
    kafka: KafkaConnection, prefix: str, tmp_path: Path
) -> None:
    plan = TopicPlan(prefix, partitions=1)
    slow = RescoringConfig(head_start_seconds=0, users_per_second=20)

    def scored_again() -> list[bytes]:
        found = [(r.key, Refresh.decode(r.value).reason) for r in read_all(kafka, plan.refreshes)]
        return [user for user, reason in found if reason == "model"]

    with running(UpdaterConfig(tmp_path / "one"), kafka, plan) as metrics:
        produce(kafka, plan, [interaction(f"u{n:03}", "i", NOW + n) for n in range(100)])
        until(lambda: applied(metrics) == 100, "taking all events in")
    slots = SlotWriter(kafka, plan.models)
    try:
        for version, folder in (("v1", "one"), ("v2", "two"), ("v3", "three")):
            slots.put("live", Announcement("live", version, "nowhere", "sha", "", NOW, NOW, 1))
            config = UpdaterConfig(tmp_path / folder, checkpoint_seconds=0.2, rescoring=slow)
            updater = Updater(config, kafka, plan, UpdaterMetrics(CollectorRegistry()))
            before = len(scored_again())
            take_turns(updater, lambda before=before: len(scored_again()) >= before + 40)  # type: ignore[misc]
            updater.checkpoint()
            updater.close()
        users = scored_again()
        assert users[:100] == [b"u%03d" % n for n in range(100)]  # nobody twice before all had a turn
        updater = Updater(config, kafka, plan, UpdaterMetrics(CollectorRegistry()))
        take_turns(updater, lambda: bool(updater._running) and updater._running[0].unsaved.cursor.finished)
        updater.checkpoint()
        updater.close()
        assert sorted(scored_again()[before:]) == sorted(set(users))  # everybody once for v3
    finally:
        slots.close()


def reasons(kafka: KafkaConnection, plan: TopicPlan) -> dict[str, str]:
    """Why each user's newest refresh was sent."""
    return {record.key.decode(): Refresh.decode(record.value).reason for record in read_all(kafka, plan.refreshes)}
