"""Interactions become durable histories and refreshes, exactly, whatever arrives."""

import json
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import CommitFailedError
from prometheus_client import CollectorRegistry

from ops.metrics import UpdaterMetrics
from state import codec
from state.history import Entry, History
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.clients.member import Move
from stream.demo.audit import changelog_histories, differences, reference_merge, stored_histories
from stream.updater.config import UpdaterConfig
from stream.updater.worker import Updater, run_updater
from stream.wire.records import Refresh
from stream.wire.topics import TopicPlan
from tests.support.updating import applied, interaction, produce, read_all, rejected, running, until

pytestmark = pytest.mark.kafka
NOW = 1_700_000_000_000


def assert_histories(kafka: KafkaConnection, plan: TopicPlan, folder: Path, expected: dict[str, History]) -> None:
    """In Kafka and in RocksDB."""
    assert differences(changelog_histories(kafka, plan.histories), expected) == []
    admin = admin_client(kafka)
    assert differences(stored_histories(admin, plan.histories, [folder / "histories"]), expected) == []
    admin.close()


def test_histories_are_the_merge_of_all_events_and_every_change_is_refreshed(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    events = [(f"u{n % 7}", Entry(NOW + (n * 37) % 101, f"i{n % 23}", 1.0)) for n in range(300)]
    config = UpdaterConfig(tmp_path, history_items=10, checkpoint_seconds=0.3)
    with running(config, kafka, plan) as metrics:
        produce(kafka, plan, [interaction(user, e.item, e.time_ms) for user, e in events])
        until(lambda: applied(metrics) == len(events), "taking all events in")
    expected = reference_merge(events, limit=10)
    assert_histories(kafka, plan, tmp_path, expected)
    refreshed = {}
    for record in read_all(kafka, plan.refreshes):
        refresh = Refresh.decode(record.value)
        assert refresh.reason == "event" and refresh.new
        refreshed[record.key.decode()] = codec.decode(refresh.history)
    assert refreshed == expected


def test_every_bad_record_is_a_dead_letter_and_the_stream_goes_on(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    large = {"user": "u", "item": "i", "timestamp": NOW, "padding": "x" * 5_000_000}
    bad = {
        "broken JSON": (b"u", b'{"user": "u", '),
        "a missing field": (b"u", b'{"user": "u", "item": "i"}'),
        "a wrong type": (b"u", b'{"user": "u", "item": [7], "timestamp": 1700000000000}'),
        "an absurd timestamp": interaction("u", "i", 1),
        "a 5 MB record": (b"u", json.dumps(large).encode()),
        "a null key": (None, interaction("u", "i", NOW)[1]),
    }
    with running(UpdaterConfig(tmp_path, checkpoint_seconds=0.2), kafka, plan) as metrics:
        produce(kafka, plan, [interaction("u", "before", NOW), *bad.values(), interaction("u", "after", NOW + 1)])
        until(lambda: applied(metrics) + rejected(metrics) == len(bad) + 2, "taking all records in")
    assert changelog_histories(kafka, plan.histories)["u"].items == ("after", "before")
    letters = read_all(kafka, plan.dead_letters)
    sent = {(key, value) for key, value in bad.values()}
    assert {(letter.key, letter.value) for letter in letters} == sent
    assert len(letters) == len(bad)
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["topic"].decode() == plan.interactions
        assert headers["reason"] in (b"decode", b"schema", b"timestamp", b"oversize")
        assert headers["detail"] and headers["offset"].isdigit() and headers["partition"] in (b"0", b"1")


def test_a_refused_record_keeps_its_headers_and_the_log_says_why_it_was_refused(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trace = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    with (
        caplog.at_level("INFO"),
        running(UpdaterConfig(tmp_path), kafka, plan) as metrics,
        closing(KafkaProducer(**kafka.kafka_python())) as producer,
    ):
        producer.send(plan.interactions, b"not JSON", key=b"u", headers=[trace]).get(10)
        until(lambda: rejected(metrics) == 1, "refusing it")
    (letter,) = read_all(kafka, plan.dead_letters)
    assert trace in letter.headers and dict(letter.headers)["reason"] == b"decode"
    assert f"refused {plan.interactions}/" in caplog.text and "freshet dead-letters list --reason decode" in caplog.text


def test_a_restart_continues_and_a_replay_changes_nothing(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    config = UpdaterConfig(tmp_path, checkpoint_seconds=0.2)
    first: list[tuple[bytes | None, bytes | None]] = [interaction(f"u{n}", "a", NOW + n) for n in range(20)]
    with running(config, kafka, plan) as metrics:
        produce(kafka, plan, first)
        until(lambda: applied(metrics) == 20, "the first events")
    before = changelog_histories(kafka, plan.histories)
    with running(config, kafka, plan) as metrics:
        produce(kafka, plan, [*first, interaction("u0", "b", NOW + 100)])
        until(lambda: applied(metrics) == 21, "the second events")
        assert metrics.events_applied["duplicate"]._value.get() == 20
    after = changelog_histories(kafka, plan.histories)
    assert after["u0"].items == ("b", "a")
    assert {u: h for u, h in after.items() if u != "u0"} == {u: h for u, h in before.items() if u != "u0"}


@pytest.mark.parametrize("damage", ["deleted", "emptied manifest", "another topic's"])
def test_a_lost_store_is_rebuilt_from_the_changelog(
    damage: str, kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    config = UpdaterConfig(tmp_path, checkpoint_seconds=0.2)
    with running(config, kafka, plan) as metrics:
        produce(kafka, plan, [interaction(f"u{n}", "a", NOW + n) for n in range(20)])
        until(lambda: applied(metrics) == 20, "the first events")
    for number in ("0", "1"):
        store = tmp_path / "histories" / number
        if damage == "deleted":
            for file in store.iterdir():
                file.unlink()
        elif damage == "emptied manifest":
            for manifest in store.glob("MANIFEST-*"):
                manifest.write_bytes(b"")
    if damage == "another topic's":
        stores = tmp_path / "histories"
        (stores / "0").rename(stores / "x")
        (stores / "1").rename(stores / "0")
        (stores / "x").rename(stores / "1")
    with running(config, kafka, plan) as metrics:
        produce(kafka, plan, [interaction(f"u{n}", "b", NOW + 100 + n) for n in range(20)])
        until(lambda: applied(metrics) == 20, "the second events")
    events = [(f"u{n}", Entry(NOW + n, "a", 1.0)) for n in range(20)]
    events += [(f"u{n}", Entry(NOW + 100 + n, "b", 1.0)) for n in range(20)]
    expected = reference_merge(events, 200)
    assert_histories(kafka, plan, tmp_path, expected)


def test_a_null_value_forgets_the_user_also_when_old_events_are_replayed(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    with running(UpdaterConfig(tmp_path, checkpoint_seconds=0.2), kafka, plan) as metrics:
        produce(kafka, plan, [interaction("u", "a", NOW), interaction("v", "a", NOW), (b"u", None)])
        until(lambda: applied(metrics) == 3, "forgetting")
        produce(kafka, plan, [interaction("u", "a", NOW)])
        until(lambda: applied(metrics) == 4, "the replay")
    histories = changelog_histories(kafka, plan.histories)
    assert histories["u"].items == () and histories["u"].forgotten_ms > NOW
    assert histories["v"].items == ("a",)
    refreshes = [Refresh.decode(r.value) for r in read_all(kafka, plan.refreshes) if r.key == b"u"]
    assert refreshes[-1].reason == "forget"
    assert codec.decode(refreshes[-1].history).forgotten_ms == histories["u"].forgotten_ms


def test_one_busy_user_cannot_fill_the_memory_between_checkpoints(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    config = UpdaterConfig(tmp_path, checkpoint_seconds=3600, checkpoint_users=50, poll_records=2)
    with running(config, kafka, plan):
        produce(kafka, plan, [interaction("u", f"i{n}", NOW + n) for n in range(200)])
        until(lambda: "u" in changelog_histories(kafka, plan.histories), "a checkpoint long before its time")


def test_what_comes_while_a_checkpoint_is_under_way_is_merged_on_what_it_carries(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    events = [(f"u{n // 20}", Entry(NOW + (n * 37) % 101, f"i{n}", 1.0)) for n in range(60)]
    # A turn takes one event and begins a checkpoint, which the next turn finds under way.
    config = UpdaterConfig(tmp_path, poll_records=1, checkpoint_users=1, checkpoint_seconds=3600)
    with running(config, kafka, plan) as metrics:
        produce(kafka, plan, [interaction(user, e.item, e.time_ms) for user, e in events])
        until(lambda: applied(metrics) == len(events), "taking all events in")
    expected = reference_merge(events, limit=200)
    assert_histories(kafka, plan, tmp_path, expected)


def test_what_a_refused_checkpoint_carried_goes_with_the_next(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    refusals = [CommitFailedError("as when the group moved on")]

    def refuse(point: str) -> None:
        if point == "produced" and refusals:
            raise refusals.pop()

    metrics = UpdaterMetrics(CollectorRegistry())
    updater = Updater(UpdaterConfig(tmp_path, checkpoint_seconds=3600), kafka, plan, metrics, crash=refuse)

    def take_in(records: list[tuple[bytes | None, bytes | None]], total: int) -> None:
        produce(kafka, plan, records)
        while applied(metrics) + rejected(metrics) < total:
            updater.turn()

    try:
        take_in([interaction("u", "a", NOW), interaction("v", "a", NOW), (b"u", b"broken")], 3)
        updater.checkpoint()
        assert changelog_histories(kafka, plan.histories) == {}
        take_in([interaction("u", "b", NOW + 1)], 4)
        updater.checkpoint()
    finally:
        updater.close()
    histories = changelog_histories(kafka, plan.histories)
    assert {user: history.items for user, history in histories.items()} == {"u": ("b", "a"), "v": ("a",)}
    assert len(read_all(kafka, plan.dead_letters)) == 1
    with running(UpdaterConfig(tmp_path, checkpoint_seconds=0.2), kafka, plan) as metrics:
        produce(kafka, plan, [interaction("w", "a", NOW)])
        until(lambda: applied(metrics) == 1, "going on where the second one ended")


def test_records_that_were_read_before_their_partition_moved_are_read_again(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = UpdaterMetrics(CollectorRegistry())
    updater = Updater(UpdaterConfig(tmp_path / "one", checkpoint_seconds=3600), kafka, plan, metrics)
    member, poll = updater._member, updater._member.poll
    read: list[TopicPartition] = []

    def poll_while_moving(*arguments: Any) -> Any:
        polled = poll(*arguments)
        read.extend(polled)
        member._consumer.pause(*polled)
        member.moves += [Move("revoked", frozenset(polled)), Move("assigned", frozenset(polled))]
        return polled

    try:
        produce(kafka, plan, [interaction("u", "a", NOW)])
        while applied(metrics) < 1:  # and no checkpoint
            updater.turn()
        produce(kafka, plan, [interaction("u", "b", NOW + 1)])
        with monkeypatch.context() as patch:
            patch.setattr(member, "poll", poll_while_moving)
            while not read:
                updater.turn()
        updater.checkpoint()
    finally:
        updater.close()
    with running(UpdaterConfig(tmp_path / "two", checkpoint_seconds=0.2), kafka, plan):
        until(lambda: "u" in changelog_histories(kafka, plan.histories), "the successor's checkpoint")
    assert changelog_histories(kafka, plan.histories)["u"].items == ("b", "a")


def test_an_updater_that_its_group_forgot_ends_and_its_successor_has_all_events(
    kafka: KafkaConnection, plan: TopicPlan, tmp_path: Path
) -> None:
    config = UpdaterConfig(tmp_path, checkpoint_seconds=0.2, session_seconds=3)
    forgotten = Updater(config, kafka, plan, UpdaterMetrics(CollectorRegistry()))
    produce(kafka, plan, [interaction("u", "before", NOW)])
    while "u" not in changelog_histories(kafka, plan.histories):
        forgotten.turn()
    coordinator: Any = forgotten._member._consumer._coordinator
    coordinator._disable_heartbeat()  # as when the library's heartbeats end for good
    feeding = threading.Event()

    def feed() -> None:
        number = 0
        while not feeding.wait(0.2):
            number += 1
            produce(kafka, plan, [interaction("u", f"later{number}", NOW + number)])

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with pytest.raises(CommitFailedError):
            forgotten.run(threading.Event())
    finally:
        feeding.set()
        feeder.join()
    produce(kafka, plan, [interaction("u", "last", NOW + 1000)])
    with running(config, kafka, plan):
        until(lambda: changelog_histories(kafka, plan.histories)["u"].items[0] == "last", "taking over")
    items = changelog_histories(kafka, plan.histories)["u"].items
    assert items[0] == "last" and items[-1] == "before"
    assert items[1:-1] == tuple(f"later{number}" for number in range(len(items) - 2, 0, -1))


def test_an_updater_whose_transactions_another_of_its_name_took_and_left_begins_again(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path
) -> None:
    """As when two of one name start together: the one that joins last need not be the one that begins to write last."""
    config = UpdaterConfig(tmp_path, worker="same", checkpoint_seconds=0.2, session_seconds=6)
    metrics, stop = UpdaterMetrics(CollectorRegistry()), threading.Event()
    events = [(f"u{n % 3}", Entry(NOW + n, f"i{n}", 1.0)) for n in range(40)]

    def written(count: int) -> bool:
        expected = reference_merge(events[:count], limit=config.history_items)
        return differences(changelog_histories(kafka, topics.histories), expected) == []

    def send(these: list[tuple[str, Entry]]) -> None:
        produce(kafka, topics, [*(interaction(user, e.item, e.time_ms) for user, e in these), (b"u", b"broken")])

    thread = threading.Thread(target=run_updater, args=(config, kafka, topics, metrics, stop))
    thread.start()
    try:
        send(events[:20])
        until(lambda: written(20), "the first histories")
        other = KafkaProducer(**kafka.kafka_python(), transactional_id=f"{topics.prefix}{config.group}-{config.worker}")
        other.init_transactions()
        other.close()
        send(events[20:])
        until(lambda: written(40), "histories after it began again", 40)
        assert metrics.checkpoints["refused"]._value.get() == 1
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert_histories(kafka, topics, tmp_path, reference_merge(events, limit=config.history_items))
    assert len(read_all(kafka, topics.dead_letters)) == 2
