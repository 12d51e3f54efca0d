"""Popularity is counted once from stored histories, whatever changes meanwhile."""

from pathlib import Path

import pytest
from kafka import TopicPartition

from state import codec
from state.history import EMPTY, Entry, merge_entries
from state.store import Store
from stream.api.popular import PopularItems
from stream.wire.meaning import EventKind, EventKinds

TP = TopicPartition("histories", 0)


def history(items: dict[str, int]) -> bytes:
    return codec.encode(merge_entries(EMPTY, [Entry(time_ms, item, 1.0) for item, time_ms in items.items()], 200))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "0", {"topic_id": "x"})


def names(popular: PopularItems, exclude: tuple[str, ...] = (), count: int = 10) -> list[str]:
    return [item for item, _ in popular.top(exclude, count)]


def walked(popular: PopularItems) -> None:
    for _ in range(10):
        popular.turn()
    popular._refresh_due = 0.0
    popular.turn()


def test_stored_histories_are_counted_once_and_what_is_added_after(store: Store) -> None:
    store.write({b"u%03d" % n: history({"tea": 1000 + n, f"i{n % 3}": 2000 + n}) for n in range(250)})
    popular = PopularItems(half_life_ms=10**9)
    popular.partition_came(TP, store)
    walked(popular)
    assert names(popular)[0] == "tea" and popular.top((), 1)[0][1] == pytest.approx(250, rel=0.01)
    before = {b"u000": store.get_many([b"u000"])[0]}
    for n in range(300):
        popular.changed(TP, before, {b"u000": history({"tea": 1000, "new": 3000 + n})})
    walked(popular)
    assert names(popular, count=2) == ["new", "tea"]
    assert names(popular, ("new",), 2) == ["tea", "i0"]
    store.close()


def test_what_changes_during_the_count_is_counted_once(store: Store) -> None:
    store.write({b"u%03d" % n: history({"tea": 1000}) for n in range(250)})
    popular = PopularItems(half_life_ms=10**9)
    popular.partition_came(TP, store)
    popular.turn()  # the first hundred are counted
    for user in (b"u005", b"u240"):
        before = {user: store.get_many([user])[0]}
        after = {user: history({"tea": 1000, "cups": 1500})}
        store.write(after)
        popular.changed(TP, before, after)
    walked(popular)
    assert dict(popular.top((), 2)) == pytest.approx({"tea": 250.0, "cups": 2.0}, rel=0.01)
    store.close()


def test_events_against_an_item_do_not_make_it_popular_and_others_count_with_their_strength(store: Store) -> None:
    entries = [Entry(1000, "returned", 1.0, "return"), Entry(1001, "not this", 0.0), Entry(1002, "tea", 1.0)]
    bought = merge_entries(EMPTY, [*entries, Entry(1003, "cups", 1.0, "buy")], 200)
    store.write({b"u%d" % n: codec.encode(bought) for n in range(3)})
    kinds = EventKinds({"return": EventKind(negative=True), "buy": EventKind(strength=4.0)})
    popular = PopularItems(10**9, kinds)
    popular.partition_came(TP, store)
    walked(popular)
    after = codec.encode(merge_entries(bought, [Entry(2000, "returned", 1.0, "return")], 200))
    popular.changed(TP, {b"u0": codec.encode(bought)}, {b"u0": after})
    walked(popular)
    assert dict(popular.top((), 9)) == pytest.approx({"cups": 12.0, "tea": 3.0}, rel=0.01)
    store.close()


def test_forgotten_users_and_broken_histories_count_nothing(store: Store) -> None:
    popular = PopularItems(half_life_ms=1000)
    popular.partition_came(TP, store)
    walked(popular)
    popular.changed(TP, {b"ann": history({"tea": 1})}, {b"ann": None})
    popular.changed(TP, {b"bob": None}, {b"bob": b"\x07"})
    popular.partition_went(TP)
    popular.changed(TP, {}, {b"cem": history({"tea": 2})})
    walked(popular)
    assert names(popular) == ["tea"]
    store.close()
