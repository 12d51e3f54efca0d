"""`item-lists` on a real Kafka: written by the trainer, once, and whole after every kill."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from model.recommend import Recommender
from ops.metrics import TrainerMetrics
from state import codec
from state.history import EMPTY, Entry, merge_entries
from state.store import Store, StoreMemory
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.itemlists.config import ItemListsConfig
from stream.itemlists.counts import Change
from stream.itemlists.keeper import ItemListKeeper
from stream.itemlists.writer import ItemListWriter
from stream.wire.catalogue import CatalogueConfig
from stream.wire.item_lists import ItemList, decode_item_list
from stream.wire.items import ItemRecord
from stream.wire.meaning import ALL_ALIKE
from stream.wire.records import ScoredItem
from stream.wire.topics import TopicPlan
from tests.support.pairs import ITEMS, paired_model

pytestmark = pytest.mark.kafka

NOW = 1_700_000_000_000


class Killed(BaseException):
    pass


def listed(name: str, *items: str) -> dict[str, ItemList]:
    return {name: ItemList(name, tuple(ScoredItem(item, 1.0) for item in items), "", 0, NOW)}


def on_topic(kafka: KafkaConnection, plan: TopicPlan) -> dict[str, list[str]]:
    """The newest lists; every record is counted in `records`."""
    found: dict[str, list[str]] = {}
    with TopicReader(kafka) as reader:
        reader.assign([TopicPartition(plan.item_lists, 0)])
        reader.to_beginning()
        for record in reader.read_to_end():
            assert record.key is not None
            if record.value is None:
                del found[record.key.decode()]
            else:
                decoded = decode_item_list(record.key, record.value)
                found[decoded.list] = [scored.item for scored in decoded.items]
    return found


def say(kafka: KafkaConnection, plan: TopicPlan, item: str, **fields: Any) -> None:
    producer = KafkaProducer(**kafka.kafka_python())
    producer.send(plan.items, ItemRecord(item, **fields).encode(), key=item.encode(), partition=0)
    producer.close()


def bought(*items: str) -> bytes:
    return codec.encode(merge_entries(EMPTY, [Entry(NOW + place, item, 1.0) for place, item in enumerate(items)], 9))


class Kept:
    """A keeper with a view of one partition, as the trainer has them."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan, folder: Path, **config: int) -> None:
        self.metrics = TrainerMetrics(CollectorRegistry())
        self.keeper = ItemListKeeper(
            ItemListsConfig(**({"list_items": 3} | config)),
            CatalogueConfig(),
            ALL_ALIKE,
            kafka,
            plan,
            folder / "counts",
            self.metrics,
            time.time,
        )
        self.store = Store(folder / "view", {"topic_id": "x"})
        self.keeper.count({"topic_id": "x"}, StoreMemory(), [0], lambda number: self.store)
        self._offset = 0

    def put(self, **users: bytes) -> None:
        for user, value in users.items():
            self.keeper.changed(0, [Change(self._offset, b"h" + user.encode(), None, value)])
            self._offset += 1

    def turn_until(self, condition: Callable[[], object], model: Recommender | None = None) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            self.keeper.turn(model)
            time.sleep(0.02)
            assert time.monotonic() < deadline

    def close(self) -> None:
        self.keeper.close()
        self.store.close()

    def counted(self) -> bool:
        assert self.keeper._counts is not None
        return self.keeper._counts.complete

    def written(self) -> float:
        written = self.metrics.registry.get_sample_value("freshet_item_lists_written_total")
        assert written is not None
        return written


def test_lists_are_written_follow_items_and_are_not_written_twice(
    kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path
) -> None:
    say(kafka, topics, "i2", categories=("tea",))
    kept = Kept(kafka, topics, tmp_path)
    kept.turn_until(kept.counted)
    kept.put(ann=bought("i0", "i2"), bob=bought("i0", "i2", "i4"), cem=bought("i0"))
    kept.turn_until(lambda: kept.written() >= 3 + ITEMS, paired_model())
    lists = on_topic(kafka, topics)
    assert lists["trending"] == ["i0", "i2", "i4"] and lists["trending/tea"] == ["i2"]
    assert set(lists["new"]) == {"i0", "i2", "i4"} and lists["similar/i0"][0] == "i1"
    assert len(lists) == 3 + ITEMS

    holding = {name for name, items in lists.items() if "i2" in items}
    say(kafka, topics, "i2", available=False, categories=("tea",))
    began = time.monotonic()
    kept.turn_until(lambda: not any("i2" in items for items in on_topic(kafka, topics).values()), paired_model())
    assert time.monotonic() - began < 5 and "trending/tea" in holding
    assert "trending/tea" not in on_topic(kafka, topics)
    kept.close()

    again = Kept(kafka, topics, tmp_path)  # which knows what it wrote
    again.turn_until(again.counted)
    for _ in range(3):
        again.keeper._turn_due = 0.0
        again.keeper.turn(paired_model())
    assert again.written() == 0
    again.close()


def test_a_writer_killed_before_its_commit_leaves_the_old_lists_and_one_that_lives_on_is_shut_out(
    kafka: KafkaConnection, topics: TopicPlan
) -> None:
    crashes = False

    def crash() -> None:
        if crashes:
            raise Killed

    first = ItemListWriter(kafka, topics.item_lists, crash)
    assert first.write(listed("trending", "a") | listed("new", "a"))
    crashes = True
    with pytest.raises(Killed):
        first.write(listed("trending", "b") | listed("new", "b"))
    second = ItemListWriter(kafka, topics.item_lists)  # ends what the first has left open
    assert second.known["trending"].items == ("a",) and second.known["new"].items == ("a",)
    assert second.write(listed("trending", "c") | {"new": None})
    assert on_topic(kafka, topics) == {"trending": ["c"]}
    crashes = False
    with pytest.raises(KafkaError):
        first.write(listed("trending", "z"))
    assert on_topic(kafka, topics) == {"trending": ["c"]}
    assert second.write(listed("trending", "d"))
    first.close()
    second.close()


def test_what_is_no_list_is_written_again(kafka: KafkaConnection, topics: TopicPlan) -> None:
    producer = KafkaProducer(**kafka.kafka_python())
    for key, value in ((b"trending", b"nonsense"), (b"new", b'{"list": "trending"}'), (None, b"x")):
        producer.send(topics.item_lists, value, key=key, partition=0)
    producer.close()
    writer = ItemListWriter(kafka, topics.item_lists)
    assert writer.known == {}
    writer.close()
