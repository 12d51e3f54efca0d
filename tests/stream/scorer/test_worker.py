"""The scoring process on a real Kafka: what it answers, what it survives, how it ends."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from model.artifact import Manifest, save_artifact
from model.config import preset
from model.items import ItemIndex
from model.learner import Learner
from ops.local.broker import LocalBroker
from state import codec
from state.history import EMPTY, Entry, merge_entries
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.registry.slots import SlotWriter
from stream.wire.history_version import HistoryVersion
from stream.wire.items import ItemRecord
from stream.wire.records import Announcement, NewInteraction, Recommendation, Refresh, RefreshReason
from stream.wire.topics import SCORER_GROUP, TopicPlan
from tests.stream.scorer.scorer_process import Process, until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

NOW = 1_700_000_000_000
TAKEN = (
    "another worker named w0 has joined the group {group} and took this one's place: give every worker a name of its "
    "own, which it keeps over restarts"
)
CATALOGUE = [f"i{n}" for n in range(30)]


def ended(processes: Iterable[Process]) -> set[Process]:
    return {process for process in processes if process.process.poll() is not None}


def place(user: str, plan: TopicPlan) -> int:
    """Not where the key's hash would put it: the scorer must keep to the partition of the input."""
    return int(user[1:]) % plan.partitions


def send(kafka: KafkaConnection, plan: TopicPlan, values: list[tuple[str, bytes]]) -> None:
    producer = KafkaProducer(**kafka.kafka_python(), linger_ms=5)
    futures = [
        producer.send(plan.refreshes, value, key=user.encode(), partition=place(user, plan)) for user, value in values
    ]
    producer.flush()
    for future in futures:
        future.get(timeout=10)
    producer.close()


def refresh(items: str, step: int = 0, reason: RefreshReason = "event") -> bytes:
    """A history of `items`, newest first, of which the newest came now."""
    names = items.split()
    entries = [Entry(NOW + step - n, item, 1.0) for n, item in enumerate(names)]
    history = merge_entries(EMPTY, entries, 200, NOW + step if reason == "forget" else 0)
    new = tuple(NewInteraction(item, NOW + step, False) for item in names[:1])
    return Refresh(reason, int(time.time() * 1000), new, codec.encode(history)).encode()


class Lists:
    """Follows `recommendations`."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan) -> None:
        self._plan = plan
        self._consumer = KafkaConsumer(**kafka.kafka_python(), auto_offset_reset="earliest", fetch_max_wait_ms=50)
        self._consumer.assign([TopicPartition(plan.recommendations, p) for p in range(plan.partitions)])
        self.last: dict[str, Recommendation | None] = {}
        self.count = 0

    def poll(self) -> dict[str, Recommendation | None]:
        for records in self._consumer.poll(timeout_ms=100).values():
            for record in records:
                assert record.key is not None
                user = record.key.decode()
                assert record.partition == place(user, self._plan)
                self.count += 1
                value = record.value
                self.last[user] = None if value is None else msgspec.json.decode(value, type=Recommendation)
        return self.last

    def of(self, user: str) -> Recommendation:
        """The last list, which there is."""
        last = self.last[user]
        assert last is not None
        return last

    def close(self) -> None:
        self._consumer.close(timeout_ms=1000)


@pytest.fixture
def lists(kafka: KafkaConnection, topics: TopicPlan) -> Iterator[Lists]:
    lists = Lists(kafka, topics)
    yield lists
    lists.close()


def announce(kafka: KafkaConnection, plan: TopicPlan, folder: Path, version: str, sha256: str | None = None) -> None:
    """A model of random weights over `CATALOGUE`, live."""
    config = preset("stream")
    learner = Learner.fresh(config, ItemIndex(CATALOGUE), seed=0, device=torch.device("cpu"))
    stored = save_artifact(str(folder / version), learner, Manifest(version=version, created=NOW, data_until=NOW))
    slots = SlotWriter(kafka, plan.models)
    address = str(folder / version)
    slots.put("live", Announcement("live", version, address, sha256 or stored, "", NOW, NOW, len(CATALOGUE)))
    slots.close()


def committed(kafka: KafkaConnection, plan: TopicPlan) -> int:
    """Offsets committed by the scorers, over all partitions."""
    consumer = KafkaConsumer(**kafka.kafka_python(), group_id=f"{plan.prefix}freshet-scorer", enable_auto_commit=False)
    total = sum(consumer.committed(TopicPartition(plan.refreshes, p)) or 0 for p in range(plan.partitions))
    consumer.close(timeout_ms=1000)
    return total


def test_popularity_then_a_model_taken_over_live(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path, lists: Lists
) -> None:
    with Process(kafka, topics, tmp_path) as scorer:
        scorer.started()
        send(kafka, topics, [("u0", refresh("i1")), ("u1", refresh("i2"))])
        until(lambda: len(lists.poll()) == 2, "the first lists")
        send(kafka, topics, [("u2", refresh("i2"))])
        until(lambda: "u2" in lists.poll(), "a list of what others like")
        assert [scored.item for scored in lists.of("u2").items] == ["i1"]
        assert (lists.of("u2").variant, lists.of("u2").model) == ("popularity", "")

        announce(kafka, topics, tmp_path, "v1")
        until(lambda: scorer.total("model_vocabulary_items", slot="live") == len(CATALOGUE), "taking v1 over")
        send(kafka, topics, [("u0", refresh("i3 i1", 1)), ("u3", refresh("unknown"))])
        until(lambda: lists.poll() and lists.of("u0").model == "v1" and "u3" in lists.last, "a list of v1")
        assert len(lists.of("u0").items) == 20 and not {"i1", "i3"} & {s.item for s in lists.of("u0").items}
        assert lists.of("u3").variant == "popularity"

        announce(kafka, topics, tmp_path, "v2", sha256="0" * 64)
        until(lambda: scorer.total("scoring_failures_total", reason="model"), "refusing an altered v2")
        send(kafka, topics, [("u1", refresh("i4 i2", 2))])
        until(lambda: lists.poll() and lists.of("u1").as_of == NOW + 2, "a list after that")
        assert lists.of("u1").model == "v1"
        assert scorer.total("prequential_events_total", outcome="hit") + scorer.total(
            "prequential_events_total", outcome="miss"
        )

        send(kafka, topics, [("u0", b"\xff"), ("u0", refresh("", reason="forget"))])
        until(lambda: lists.poll()["u0"] is None, "forgetting")
        code, seconds = scorer.end()
        assert code == 0 and seconds < 10
    assert committed(kafka, topics) == 8

    consumer = KafkaConsumer(topics.dead_letters, **kafka.kafka_python(), auto_offset_reset="earliest")
    (letter,) = next(iter(consumer.poll(timeout_ms=10_000).values()))
    consumer.close(timeout_ms=1000)
    headers = {name: value.decode() for name, value in letter.headers}
    assert (letter.key, letter.value) == (b"u0", b"\xff")
    assert (headers["reason"], headers["topic"], headers["partition"]) == ("schema", topics.refreshes, "0")
    assert headers["offset"].isdigit() and headers["detail"] and headers["by"] == "scorer"

    with Process(kafka, topics, tmp_path) as scorer:
        scorer.started()
        send(kafka, topics, [("u4", refresh("unknown"))])
        until(lambda: lists.poll().get("u4"), "a list after the restart")
        assert {scored.item for scored in lists.of("u4").items} >= {"i1", "i2", "i3", "i4"}
        assert scorer.total("events_consumed_total") == 1, "a clean end leaves nothing to repeat"


def test_a_list_that_was_not_delivered_is_not_committed(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path, lists: Lists
) -> None:
    admin: Any = admin_client(kafka)  # its stub has what Freshet calls

    def take_at_most(size: int) -> None:
        configs = {"cleanup.policy": "compact", "max.message.bytes": str(size)}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topics.recommendations, configs=configs)])

    take_at_most(10)
    send(kafka, topics, [("u0", refresh("i1"))])
    with Process(kafka, topics, tmp_path) as scorer:
        assert scorer.process.wait(60) == 1
    assert committed(kafka, topics) == 0
    take_at_most(1024 * 1024)
    admin.close()
    with Process(kafka, topics, tmp_path):
        until(lambda: "u0" in lists.poll(), "the list by its successor")


def test_an_older_history_or_list_never_stays_over_a_newer_one(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path, lists: Lists
) -> None:
    """An updater and a scorer that were paused come back, and the partitions are another scorer's by then."""
    histories = [("u0", refresh("i1", 1)), ("u1", refresh("i1", 1))]
    with Process(kafka, topics, tmp_path / "0") as scorer:
        scorer.started()
        send(kafka, topics, [("u0", refresh("i2 i1", 5)), ("u1", refresh("i2 i1", 5))])
        until(lambda: len(lists.poll()) == 2, "the newer lists")
        send(kafka, topics, [("u1", refresh("", 5, reason="forget"))])
        until(lambda: lists.poll()["u1"] is None, "forgetting")
        send(kafka, topics, histories)
        until(lambda: scorer.total("stale_refreshes_total") == 2, "refusing older histories")
        assert scorer.end()[0] == 0
    with Process(kafka, topics, tmp_path / "1") as scorer:
        scorer.started()
        send(kafka, topics, histories)
        until(lambda: scorer.total("stale_refreshes_total") == 2, "refusing them as a new owner")
        assert lists.count == 3

        newer = lists.last["u0"]
        assert newer is not None
        paused = KafkaProducer(**kafka.kafka_python())
        for user in ("u0", "u1"):
            value = msgspec.json.encode(Recommendation(user, (), "v0", "control", NOW + 1, "event", NOW))
            headers = [HistoryVersion(0, NOW + 1, NOW + 1).header()]
            paused.send(
                topics.recommendations, value, key=user.encode(), partition=place(user, topics), headers=headers
            )
        paused.flush()
        paused.close()
        until(lambda: lists.poll() and lists.count >= 7, "publishing the newer ones again")
        assert lists.last["u1"] is None
        again = lists.last["u0"]
        assert again is not None and (again.as_of, again.items, again.variant) == (NOW + 5, newer.items, newer.variant)
        assert scorer.total("lists_published_again_total") == 2


def test_no_list_is_lost_when_one_of_two_scorers_is_killed(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path, lists: Lists
) -> None:
    users = [f"u{n}" for n in range(50)]
    with Process(kafka, topics, tmp_path / "0") as first, Process(kafka, topics, tmp_path / "1") as second:
        first.started()
        second.started()
        for step in range(20):
            send(kafka, topics, [(user, refresh("i1", step)) for user in users])
            if step == 10:
                assert first.total("events_consumed_total") and second.total("events_consumed_total")
                first.process.kill()
        until(lambda: len(lists.poll()) == 50 and all(lists.of(u).as_of == NOW + 19 for u in lists.last), "every list")
        assert lists.count <= 2 * 50 * 20, "only what was not committed is repeated"


def test_a_named_worker_that_is_killed_serves_again_when_it_is_back_and_a_clean_end_hands_over_at_once(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path, lists: Lists
) -> None:
    session = ("--session-seconds", "120")  # nobody else gets its partitions for so long
    users = [f"u{n}" for n in range(10)]

    def served(step: int) -> bool:
        found = lists.poll()
        return len(found) == len(users) and all(one is not None and one.as_of == NOW + step for one in found.values())

    with Process(kafka, topics, tmp_path / "0", "--worker", "w0", *session) as killed:
        killed.started()
        send(kafka, topics, [(user, refresh("i1", 1)) for user in users])
        until(lambda: served(1), "the first lists")
        killed.process.kill()
        killed.process.wait()
        send(kafka, topics, [(user, refresh("i1", 2)) for user in users])
        with Process(kafka, topics, tmp_path / "0", "--worker", "w0", *session) as again:
            until(lambda: served(2), "lists after the kill", 90)  # before its session would have ended
            with Process(kafka, topics, tmp_path / "1", "--worker", "w1", *session) as other:
                other.started()
                until(lambda: other.total("rebalances_total") >= 1, "sharing")
                assert again.end()[0] == 0
                send(kafka, topics, [(user, refresh("i1", 3)) for user in users])
                until(lambda: served(3), "lists after a clean end")


@pytest.mark.long  # three starts of torch; the orders themselves are in tests/stream/clients/test_static_member.py
def test_of_workers_of_one_name_the_last_to_join_stays_and_all_others_end_with_one_line(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path, lists: Lists
) -> None:
    def process(n: int) -> Process:
        return Process(kafka, topics, tmp_path / str(n), "--worker", "w0")

    with process(0) as first:
        first.started()
        with process(1) as second, process(2) as third:  # at the same moment: each may come between the other's steps
            processes = {first, second, third}
            until(lambda: len(ended(processes)) == 2, "the end of two", 90)
            assert first in ended(processes)
            taken = TAKEN.format(group=f"{topics.prefix}{SCORER_GROUP}")
            assert [(process.process.returncode, process.problems()) for process in ended(processes)] == [
                (2, [taken])
            ] * 2
            (stays,) = processes - ended(processes)
            send(kafka, topics, [(f"u{n}", refresh("i1")) for n in range(4)])
            until(lambda: len(lists.poll()) == 4, "lists")
            assert stays.problems() == [] and stays.end()[0] == 0


def test_it_ends_in_time_also_when_kafka_is_gone(tmp_path: Path) -> None:
    plan = TopicPlan(partitions=1)
    with LocalBroker() as broker:
        kafka = KafkaConnection(broker.bootstrap_servers)
        with Process(kafka, plan, tmp_path) as scorer:
            scorer.started()
            send(kafka, plan, [("u0", refresh("i1"))])
            until(lambda: scorer.total("recommendations_published_total"), "a list")
            broker.kill()
            code, seconds = scorer.end()
            assert code == 0 and seconds < 10


def test_an_item_that_becomes_unavailable_leaves_published_lists_and_new_ones(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path
) -> None:
    lists = Lists(kafka, topics)
    users = [f"u{n}" for n in range(40)]
    producer = KafkaProducer(**kafka.kafka_python())
    with Process(kafka, topics, tmp_path / "scorer") as scorer:
        scorer.started()
        fans = [("u9{}", "i1"), ("u8{}", "i2")]  # who make both items popular
        send(kafka, topics, [(name.format(n), refresh(item)) for name, item in fans for n in range(5)])
        until(lambda: len(lists.poll()) == 10, "the first lists")
        send(kafka, topics, [(user, refresh(f"x{user}")) for user in users])
        until(lambda: len(lists.poll()) == len(users) + 10, "everybody's list")

        def holding(item: str) -> list[str]:
            return [u for u, found in lists.poll().items() if found and item in [i.item for i in found.items]]

        assert len(holding("i1")) >= len(users)
        value = ItemRecord("i1", available=False).encode()
        producer.send(topics.items, value, key=b"i1").get(timeout=10)
        until(lambda: not holding("i1"), "lists without the item", 20)
        renewed = lists.last["u0"]
        assert renewed is not None
        assert renewed.reason == "items"
        assert scorer.total("renewed_lists_total") >= len(users)
        send(kafka, topics, [("u50", refresh("y1"))])
        until(lambda: "u50" in lists.poll(), "a list after that")
        assert not holding("i1")
        until_ms = int(time.time() * 1000) + 1500
        producer.send(topics.items, ItemRecord("i2", until_ms=until_ms).encode(), key=b"i2").get(timeout=10)
        until(lambda: time.time() * 1000 > until_ms and not holding("i2"), "the end of its time", 20)
    lists.close()
    producer.close()
