"""Popularity is a decayed count, taken lazily and yet exactly."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.popularity import Popularity

HALF_LIFE = 1000
events = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 20 * HALF_LIFE)), max_size=300)


def counted(pairs: list[tuple[str, int]]) -> dict[str, float]:
    """The definition: every event counts 1 at its time and half as much every half-life later."""
    newest = max((time_ms for _, time_ms in pairs), default=0)
    counts: dict[str, float] = {}
    for item, time_ms in pairs:
        counts[item] = counts.get(item, 0.0) + 2.0 ** ((time_ms - newest) / HALF_LIFE)
    return counts


def add(popularity: Popularity, pairs: Iterable[tuple[str, int]]) -> None:
    for item, time_ms in pairs:
        popularity.add(item, time_ms)


@given(st.lists(events, max_size=4))
def test_the_top_is_that_of_the_definition(batches: list[list[tuple[str, int]]]) -> None:
    popularity = Popularity(HALF_LIFE)
    for batch in batches:
        add(popularity, batch)
        popularity.refresh()
    expected = counted([pair for batch in batches for pair in batch])
    found = popularity.top(exclude=(), count=10)
    assert dict(found) == pytest.approx(expected)
    assert [count for _, count in found] == sorted((count for _, count in found), reverse=True)


def test_what_rises_enters_a_top_that_was_full() -> None:
    popularity = Popularity(HALF_LIFE, kept=3)
    add(popularity, [(item, 0) for item in "aaaabbbccd" for _ in range(20)])
    popularity.refresh()
    assert [item for item, _ in popularity.top((), 5)] == ["a", "b", "c"]
    add(popularity, [("d", 0)] * 200)
    popularity.refresh()
    assert [item for item, _ in popularity.top((), 5)] == ["d", "a", "b"]


def test_seen_items_are_left_out() -> None:
    popularity = Popularity(HALF_LIFE)
    add(popularity, [("a", 3), ("a", 2), ("b", 1)])
    popularity.refresh()
    assert [item for item, _ in popularity.top({"a"}, 5)] == ["b"]


@given(events, st.sets(st.sampled_from("abcdefgh")), st.sampled_from("abcdefghx"), st.integers(1, 10))
def test_a_rank_is_the_place_in_the_top(pairs: list[tuple[str, int]], exclude: set[str], item: str, count: int) -> None:
    popularity = Popularity(HALF_LIFE)
    add(popularity, pairs)
    popularity.refresh()
    top = [other for other, _ in popularity.top(exclude, count)]
    assert popularity.rank(item, exclude, count) == (top.index(item) + 1 if item in top else count + 1)


def test_decades_do_not_overflow() -> None:
    popularity = Popularity(HALF_LIFE)
    add(popularity, [("old", 0), ("new", 5000 * HALF_LIFE), ("new", 5001 * HALF_LIFE)])
    popularity.refresh()
    weight: Any = pytest.approx(1.5)
    assert popularity.top((), 5) == [("new", weight)]


@given(events)
def test_a_dump_brings_the_same_list_back(pairs: list[tuple[str, int]]) -> None:
    popularity, restored = Popularity(HALF_LIFE), Popularity(HALF_LIFE)
    add(popularity, pairs)
    restored.load(popularity.dump())
    assert restored.top((), 10) == popularity.top((), 10)


def test_a_foreign_dump_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        Popularity(HALF_LIFE).load(b"\x93\x01\x02\x03")


def test_memory_is_bounded_and_what_is_popular_stays() -> None:
    popularity = Popularity(HALF_LIFE, kept=10, most_items=100)
    for start in range(0, 1000, 100):
        add(popularity, [("evergreen", 0), ("evergreen", 0)])
        add(popularity, [(f"i{n}", 0) for n in range(start, start + 100)])
        popularity.refresh()
        assert len(popularity) <= 200
    assert popularity.top((), 1) == [("evergreen", 20.0)]
