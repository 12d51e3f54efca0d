"""A scorer knows what others published before it answers, notices what they publish later, and erases what it left."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaProducer

from state.store import StoreConfig
from stream.clients.connection import KafkaConnection
from stream.scorer.list_follower import FollowerEvents, ListFollower
from stream.scorer.shown_lists import LastList, ShownLists
from stream.wire.history_version import HistoryVersion
from stream.wire.records import Recommendation, ScoredItem
from stream.wire.topics import TopicPlan

pytestmark = pytest.mark.kafka

NOW = 1_700_000_000_000


def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.02)


class Follower:
    """A running follower, and what it said."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan, folder: Path, former_seconds: float = 60.0) -> None:
        self.lists = ShownLists(folder, StoreConfig())
        self.caught_up: list[tuple[int, int]] = []
        self.published: list[tuple[int, Mapping[bytes, LastList]]] = []
        events = FollowerEvents(
            lambda assignment, number: self.caught_up.append((assignment, number)),
            lambda: None,
            lambda number, newer: self.published.append((number, newer)),
        )
        self.follower = ListFollower(kafka, plan, self.lists, events, former_seconds)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.follower.run, args=(self._stop,))
        self._thread.start()

    def take(self, *partitions: int) -> None:
        """Own these partitions; returns when all of them may be answered."""
        assignment = self.follower.follow(partitions)
        expected = {(assignment, number) for number in partitions}
        until(lambda: expected <= set(self.caught_up), "catching up")

    def known(self, user: str, partition: int = 0) -> LastList | None:
        return self.lists.get([(partition, user.encode())]).get(user.encode())

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.lists.close()


@pytest.fixture
def start(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> Iterator[Callable[..., Follower]]:
    started: list[Follower] = []

    def start(folder: str = "a", former_seconds: float = 60.0) -> Follower:
        started.append(Follower(kafka, topics, tmp_path / folder, former_seconds))
        return started[-1]

    yield start
    for follower in started:
        follower.close()


@pytest.fixture
def publish(kafka: KafkaConnection, topics: TopicPlan) -> Iterator[Callable[..., int]]:
    """Write a list as a scorer does; returns its offset."""
    producer = KafkaProducer(**kafka.kafka_python())

    def publish(user: str, newest_ms: int, *, forgotten_ms: int = 0, partition: int = 0, items: str = "ab") -> int:
        scored = tuple(ScoredItem(item, 1.0) for item in items)
        value = Recommendation(user, scored, "v1", "control", newest_ms, "event", NOW)
        headers = [HistoryVersion(forgotten_ms, newest_ms, newest_ms).header()]
        encoded = msgspec.json.encode(value) if items else None
        sent = producer.send(topics.recommendations, encoded, key=user.encode(), partition=partition, headers=headers)
        return sent.get(timeout=10).offset

    yield publish
    producer.close()


def test_a_new_owner_knows_the_last_lists_before_it_answers(
    start: Callable[..., Follower], publish: Callable[..., int]
) -> None:
    publish("u", 5)
    publish("gone", 5)
    publish("gone", 0, forgotten_ms=9, items="")
    publish("other", 7, partition=1)
    follower = start()
    follower.take(0)
    last, gone = follower.known("u"), follower.known("gone")
    assert last is not None and last.version == (0, 5, 5)
    assert last.shown is not None
    assert (last.shown.items, last.shown.version, last.shown.published_ms) == (("a", "b"), "v1", NOW)
    assert gone is not None and gone.shown is None and gone.version.forgotten_ms == 9
    assert follower.known("other", 1) is None
    assert follower.published == []


def test_a_partition_that_comes_back_brings_what_others_did_meanwhile(
    start: Callable[..., Follower], publish: Callable[..., int]
) -> None:
    publish("u", 5)
    follower = start()
    follower.take(0)
    follower.take(1)
    publish("u", 6)
    follower.take(0, 1)
    last = follower.known("u")
    assert last is not None and last.version.newest_ms == 6


def test_an_older_list_by_somebody_else_is_noticed_although_nothing_else_happens(
    start: Callable[..., Follower], publish: Callable[..., int]
) -> None:
    follower = start()
    follower.take(0, 1)
    offset = publish("u", 6)
    partition = follower.lists[0]
    assert partition is not None
    newer = LastList(HistoryVersion(0, 6, 6), offset, b"the list that was published")
    partition.put({b"u": newer}, [(offset, offset + 1)], NOW)
    publish("u", 5)  # by a scorer that does not know yet that it lost the partition
    until(lambda: follower.published, "noticing")
    assert follower.published[0] == (0, {b"u": newer})


def test_what_a_former_owner_kept_leaves_its_disk(
    start: Callable[..., Follower], publish: Callable[..., int], tmp_path: Path
) -> None:
    publish("forgotten", 5)
    former = start("former", former_seconds=1.0)
    former.take(0, 1)
    former.take(1)
    publish("forgotten", 0, forgotten_ms=9, items="")
    until(lambda: not (tmp_path / "former" / "0").exists(), "leaving the disk")
    assert former.known("forgotten") is None
    former.take(0, 1)
    last = former.known("forgotten")
    assert last is not None and last.shown is None


def test_a_partition_that_was_left_before_a_restart_leaves_the_disk_too(
    start: Callable[..., Follower], publish: Callable[..., int], tmp_path: Path
) -> None:
    publish("u", 5)
    first = start("same")
    first.take(0)
    first.lists.close()
    second = start("same", former_seconds=1.0)
    second.take(1)
    until(lambda: not (tmp_path / "same" / "0").exists(), "leaving the disk")
