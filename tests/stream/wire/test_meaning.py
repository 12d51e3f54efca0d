"""What events mean: strengths, negative events and how long an item stays hidden."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.codec import encode, read
from state.history import EMPTY, Entry, History, merge_entries
from state.traces import item_hash
from stream.wire.meaning import ALWAYS, NEVER, EventKind, EventKinds, Meaning, hiding_ms

HOUR = 3_600_000
DAY = 24 * HOUR
KINDS = EventKinds(
    {
        "view": EventKind(strength=0.25, hides="never"),
        "buy": EventKind(hides="30d"),
        "return": EventKind(negative=True, hides="30d"),
        "dislike": EventKind(negative=True),
    }
)


def meaning(entries: list[Entry], now_ms: int, kinds: EventKinds = KINDS, limit: int = 200) -> Meaning:
    return kinds.meaning(read(encode(merge_entries(EMPTY, entries, limit))), now_ms)


def test_an_event_without_a_setting_counts_with_its_weight_and_hides_for_ever() -> None:
    found = meaning([Entry(DAY, "a", 0.5), Entry(2 * DAY, "b", 2.0, "unknown")], 4000 * DAY)
    assert found.strengths.tolist() == [2.0, 0.5]
    assert found.hidden.all()


def test_a_purchase_hides_its_item_for_its_time_and_no_longer() -> None:
    bought = [Entry(DAY, "milk", 1.0, "buy")]
    assert meaning(bought, 31 * DAY - 1).hidden.tolist() == [True]
    assert meaning(bought, 31 * DAY).hidden.tolist() == [False]


def test_a_later_view_changes_neither_the_strength_of_a_purchase_nor_its_hiding() -> None:
    found = meaning([Entry(DAY, "milk", 1.0, "buy"), Entry(2 * DAY, "milk", 1.0, "view")], 3 * DAY)
    assert found.strengths.tolist() == [1.0]
    assert found.hidden.tolist() == [True]


def test_a_return_takes_the_purchase_back_and_a_new_purchase_counts_again() -> None:
    returned = [Entry(DAY, "shoe", 1.0, "buy"), Entry(2 * DAY, "shoe", 1.0, "return")]
    assert meaning(returned, 3 * DAY).strengths.tolist() == [0.0]
    again = meaning([*returned, Entry(3 * DAY, "shoe", 1.0, "buy")], 4 * DAY)
    assert again.strengths.tolist() == [1.0]
    assert again.times.tolist() == [1]


def test_a_weight_of_zero_is_negative_whatever_the_kind() -> None:
    assert not KINDS.positive("buy", 0.0)
    assert meaning([Entry(DAY, "a", 1.0, "buy"), Entry(2 * DAY, "a", 0.0, "view")], 3 * DAY).strengths.tolist() == [0.0]


def test_a_disliked_item_stays_hidden_whatever_comes_later() -> None:
    events = [Entry(DAY, "a", 1.0, "dislike")] + [Entry((2 + n) * DAY, "a", 1.0, "view") for n in range(40)]
    assert meaning(events, 4000 * DAY).hidden.tolist() == [True]


def test_what_left_the_history_stays_hidden_as_its_kind_says() -> None:
    events = [Entry(DAY, "disliked", 1.0, "dislike"), Entry(DAY, "bought", 1.0, "buy"), Entry(DAY, "seen", 1.0, "view")]
    newer = [Entry((2 + n) * DAY, f"i{n}", 1.0, "view") for n in range(3)]
    soon = meaning(events + newer, 9 * DAY, limit=3)
    late = meaning(events + newer, 90 * DAY, limit=3)
    assert set(soon.hidden_hashes.tolist()) == {item_hash("disliked"), item_hash("bought")}
    assert set(late.hidden_hashes.tolist()) == {item_hash("disliked")}


def test_the_rhythm_of_repeats_is_their_mean_gap() -> None:
    found = meaning([Entry((1 + 7 * n) * DAY, "milk", 1.0, "buy") for n in range(4)], 40 * DAY)
    assert found.times.tolist() == [4]
    assert found.gap_ms.tolist() == [7 * DAY]
    assert math.isnan(meaning([Entry(DAY, "milk", 1.0, "buy")], 2 * DAY).gap_ms[0])


events = st.lists(
    st.builds(
        Entry,
        st.integers(1, 40).map(lambda hour: hour * HOUR),
        st.sampled_from("abcdef"),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.sampled_from(["", "view", "buy", "return", "dislike"]),
    ),
    max_size=40,
)


def reference(history: History, now_ms: int) -> tuple[list[float], list[bool], list[int]]:
    """The definition, event by event."""
    strengths, hidden, times = [], [], []
    for place in range(len(history.items)):
        positive: list[float] = []
        for event in history.events(place):
            if not KINDS.positive(event.kind, event.strength):
                break
            positive.append(event.strength * KINDS[event.kind].strength)
        strengths.append(max(positive, default=0.0))
        times.append(len(positive))
        hidden.append(any(e.time_ms + hiding_ms(KINDS[e.kind].hides) > now_ms for e in history.events(place)))
    return strengths, hidden, times


@given(events, st.integers(1, 3000).map(lambda hour: hour * HOUR))
def test_the_arrays_equal_the_definition(entries: list[Entry], now_ms: int) -> None:
    history = merge_entries(EMPTY, entries, 4)
    found = KINDS.meaning(read(encode(history)), now_ms)
    strengths, hidden, times = reference(history, now_ms)
    np.testing.assert_allclose(found.strengths, strengths)
    assert found.hidden.tolist() == hidden
    assert found.times.tolist() == times


@given(events, st.sampled_from("abcdef"), st.integers(1, 41).map(lambda hour: hour * HOUR))
def test_a_negative_event_never_raises_anything(entries: list[Entry], item: str, time_ms: int) -> None:
    before = merge_entries(EMPTY, entries, 10)
    after = merge_entries(before, [Entry(time_ms, item, 1.0, "dislike")], 10)
    strengths = [dict(zip(h.items, reference(h, 0)[0], strict=True)) for h in (before, after)]
    assert all(strengths[1][item] <= strengths[0].get(item, 0.0) for item in strengths[1])


def test_durations_are_read_and_nonsense_is_refused() -> None:
    assert (hiding_ms("always"), hiding_ms("never"), hiding_ms("1.5h")) == (ALWAYS, NEVER, 90 * 60_000)
    with pytest.raises(ValueError, match="30d"):
        hiding_ms("thirty days")
    with pytest.raises(ValueError, match="hides"):
        EventKind(hides="5")
