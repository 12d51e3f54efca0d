"""Which lists are due, from counts and a model whose right answer is known."""

from collections.abc import Mapping
from typing import cast

import pytest

from model.recommend import Recommender
from state.popularity import Popularity
from stream.itemlists.config import ItemListsConfig
from stream.itemlists.counts import ItemCounts
from stream.itemlists.lists import DueLists
from stream.itemlists.writer import KnownList
from stream.wire.catalogue import Catalogue
from stream.wire.item_lists import ItemList
from stream.wire.items import ItemRecord
from tests.support.pairs import ITEMS, paired_model

NOW = 1_700_000_000_000
DAY_MS = 86_400_000


class Counted:
    """Counts as `stream.itemlists.counts` has them."""

    def __init__(self) -> None:
        self.popularity, self.first_ms, self.events = Popularity(10**9 * DAY_MS), dict[str, int](), 0

    def met(self, item: str, times: int, time_ms: int) -> None:
        self.first_ms.setdefault(item, time_ms)
        for _ in range(times):
            self.popularity.add(item, time_ms)
            self.events += 1
        self.popularity.refresh()

    def newest(self, count: int, since_ms: int) -> list[tuple[str, int]]:
        found = sorted(self.first_ms.items(), key=lambda met: met[1], reverse=True)
        return [(item, met_ms) for item, met_ms in found if met_ms > since_ms][:count]


class Topic:
    def __init__(self, **config: int) -> None:
        self.known: dict[str, KnownList] = {}
        self.counts = Counted()
        self.lists = DueLists(
            ItemListsConfig(list_items=3, **config), Catalogue(), cast(ItemCounts, self.counts), self.known
        )

    def take(self, due: Mapping[str, ItemList | None]) -> dict[str, list[str] | None]:
        """Written, and what was written."""
        for name, found in due.items():
            if found is None:
                del self.known[name]
            else:
                assert found.list == name and found.published == NOW
                self.known[name] = KnownList.of(found)
        return {name: None if found is None else [one.item for one in found.items] for name, found in due.items()}


def there(found: ItemList | None) -> ItemList:
    assert found is not None
    return found


def items_of(found: ItemList | None) -> list[str]:
    return [one.item for one in there(found).items]


@pytest.fixture
def topic() -> Topic:
    topic = Topic()
    for place, (item, times) in enumerate([("a", 5), ("b", 4), ("c", 3), ("d", 2), ("e", 1)]):
        topic.counts.met(item, times, NOW - place * DAY_MS)
    return topic


def test_trending_new_and_categories_are_due_once(topic: Topic) -> None:
    topic.lists.change_items(
        {
            "b": ItemRecord("b", categories=("tea", "gifts")),
            "d": ItemRecord("d", categories=("tea",)),
            "e": ItemRecord("e", from_ms=NOW - 1000),
        },
        NOW,
    )
    assert topic.take(topic.lists.counted(NOW)) == {
        "trending": ["a", "b", "c"],
        "new": ["a", "e", "b"],
        "trending/tea": ["b", "d"],
        "trending/gifts": ["b"],
    }
    assert topic.known["trending"].scores.tolist() == pytest.approx([5, 4, 3])
    assert topic.known["trending"].as_of == NOW
    assert topic.lists.counted(NOW) == {}
    topic.counts.met("a", 1, NOW)
    assert topic.lists.counted(NOW) == {}  # the order is the same
    topic.counts.met("e", 9, NOW)
    assert topic.take(topic.lists.counted(NOW)) == {"trending": ["e", "a", "b"]}


def test_what_is_gone_leaves_every_list_and_comes_back(topic: Topic) -> None:
    topic.lists.change_items({"b": ItemRecord("b", categories=("tea",))}, NOW)
    topic.take(topic.lists.counted(NOW))
    gone = topic.lists.change_items({"b": ItemRecord("b", available=False, categories=("tea",))}, NOW)
    assert topic.take(gone) == {"trending": ["a", "c"], "new": ["a", "c"], "trending/tea": None}
    assert topic.take(topic.lists.counted(NOW)) == {"trending": ["a", "c", "d"], "new": ["a", "c", "d"]}
    assert topic.lists.change_items({"b": None}, NOW) == {}
    assert topic.take(topic.lists.counted(NOW)) == {"trending": ["a", "b", "c"], "new": ["a", "b", "c"]}


def test_an_item_that_starts_and_ends_needs_no_message(topic: Topic) -> None:
    soon, end = NOW + 1000, NOW + 5000
    topic.lists.change_items({"a": ItemRecord("a", from_ms=soon, until_ms=end)}, NOW)
    assert topic.take(topic.lists.counted(NOW))["trending"] == ["b", "c", "d"]
    topic.lists.change_items({}, soon)
    started = topic.lists.counted(soon)
    assert items_of(started["trending"]) == ["a", "b", "c"]
    topic.known |= {name: KnownList.of(there(found)) for name, found in started.items()}
    gone = topic.lists.change_items({}, end)
    assert {name: items_of(found) for name, found in gone.items()} == {
        "trending": ["b", "c"],
        "new": [item for item in topic.known["new"].items if item != "a"],
    }


def test_lists_found_on_the_topic_are_looked_through_once(topic: Topic) -> None:
    topic.take(topic.lists.counted(NOW))
    again = DueLists(ItemListsConfig(list_items=3), Catalogue(), cast(ItemCounts, topic.counts), topic.known)
    again.change_items({"c": ItemRecord("c", available=False)}, NOW)
    assert {name: items_of(found) for name, found in again.holding_unlisted(NOW).items()} == {
        "trending": ["a", "b"],
        "new": ["a", "b"],
    }


def test_only_so_many_categories_have_a_list() -> None:
    topic = Topic(categories=2)
    for count, item in enumerate("abc"):
        topic.counts.met(item, 3 - count, NOW)
    topic.lists.change_items({item: ItemRecord(item, categories=(f"of-{item}",)) for item in "abc"}, NOW)
    assert {name for name in topic.lists.counted(NOW) if "/" in name} == {"trending/of-a", "trending/of-b"}


@pytest.fixture(scope="module")
def model() -> Recommender:
    return paired_model()


@pytest.fixture
def similar(topic: Topic, model: Recommender) -> Topic:
    while due := topic.lists.similar(model, 7, NOW):
        assert len(due) <= 7
        topic.take(due)
    return topic


def test_every_item_of_the_model_has_a_list_of_similar_ones(similar: Topic, model: Recommender) -> None:
    assert similar.known.keys() == {f"similar/{item}" for item in model.items.ids}
    assert all(similar.known[f"similar/i{n}"].items[0] == f"i{n + 1}" for n in range(0, ITEMS, 2))
    assert {known.model for known in similar.known.values()} == {"v"}


def test_lists_of_similar_items_follow_what_may_be_listed(similar: Topic, model: Recommender) -> None:
    holding = {name for name, known in similar.known.items() if "i1" in known.items}
    gone = similar.take(similar.lists.change_items({"i1": ItemRecord("i1", available=False)}, NOW))
    assert gone.keys() == holding and all(items is not None and "i1" not in items for items in gone.values())
    while due := similar.lists.similar(model, 7, NOW):
        assert similar.take(due).keys() <= holding
    assert all(len(known.items) == 3 and "i1" not in known.items for known in similar.known.values())


def test_the_same_lists_of_another_version_are_not_written(similar: Topic, model: Recommender) -> None:
    assert similar.lists.similar(paired_model(), ITEMS, NOW) == {}


def test_a_large_catalogue_has_lists_of_what_is_met_most(model: Recommender) -> None:
    topic = Topic(similar=3)
    for n in (30, 20, 10):
        topic.counts.met(f"i{n}", n, NOW)
    assert topic.lists.similar(model, 100, NOW).keys() == {"similar/i10", "similar/i20", "similar/i30"}
    assert Topic(similar=0).lists.similar(model, 100, NOW) == {}
    assert topic.lists.similar(None, 100, NOW) == {}
