"""When another model goes live, stored histories are sent to the scorer again."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ops.metrics import UpdaterMetrics
from state import codec
from state.history import EMPTY, Entry, merge_entries
from state.store import Store
from stream.clients.connection import KafkaConnection
from stream.demo.audit import changelog_histories
from stream.registry.slots import Slots
from stream.updater.config import UpdaterConfig
from stream.updater.rescoring import RescoringConfig, RescoringWalk
from stream.updater.worker import Updater
from stream.wire.records import Announcement, Refresh
from stream.wire.topics import TopicPlan
from tests.support.updating import applied, interaction, produce, read_all, running, until

DAY_MS = 86_400_000
NOW = 1_700_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """u0 was last seen today, u1 yesterday, u2 the day before, ..."""
    store = Store(tmp_path / "store", {"of": "test"})
    for n in range(10):
        history = merge_entries(EMPTY, [Entry(NOW - n * DAY_MS, "i", 1.0)], 20)
        store.write({b"u%d" % n: codec.encode(history)})
    yield store
    store.close()


def test_a_walk_meets_every_active_user_once_at_the_rate_it_is_given(store: Store) -> None:
    now = [100.0]
    config = RescoringConfig(users_per_second=2, active_days=4.5)
    walk = RescoringWalk("v2", {0: store}, NOW, config, clock=lambda: now[0])
    met = []
    while not walk.finished:
        now[0] += 1.0
        found = [user for _, user, _ in walk.due({0: store})]
        assert len(found) <= 2
        met += found
    assert met == [b"u0", b"u1", b"u2", b"u3", b"u4"]
    assert now[0] >= 105.0


def test_a_partition_that_moved_away_is_left_to_its_new_owner(store: Store) -> None:
    now = [0.0]
    walk = RescoringWalk("v2", {0: store}, NOW, RescoringConfig(), clock=lambda: now[0])
    now[0] = 1.0
    assert list(walk.due({})) == []
    assert walk.finished


@pytest.mark.kafka
def test_a_new_live_model_sends_everybody_again_but_who_was_forgotten(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    config = UpdaterConfig(tmp_path, checkpoint_seconds=3600)
    updater = Updater(config, kafka, plan, UpdaterMetrics(CollectorRegistry()))
    slots = Slots(kafka, plan.models)
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
    slots = Slots(kafka, topics.models)
    try:
        slots.put("live", Announcement("live", "v2", "nowhere", "sha", "v1", NOW, NOW, 1))
        while updater._rescoring._slots.live is None:
            updater._rescoring._slots.poll()
        updater._rescore()  # as in a turn that ends before the group has answered
        deadline = time.monotonic() + 30
        while list(reasons(kafka, topics).values()).count("model") < 10:
            assert time.monotonic() < deadline, reasons(kafka, topics)
            updater.turn()
    finally:
        slots.close()
        updater.close()


def reasons(kafka: KafkaConnection, plan: TopicPlan) -> dict[str, str]:
    """Why each user's newest refresh was sent."""
    return {record.key.decode(): Refresh.decode(record.value).reason for record in read_all(kafka, plan.refreshes)}
