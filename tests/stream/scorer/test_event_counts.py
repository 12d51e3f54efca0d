"""What events add up to: each once, paired with what came before it, hidden as the lists hide."""

import numpy as np
import pytest

from state import codec
from state.history import EMPTY, Entry, merge_entries
from stream.scorer.event_counts import EventCounts
from stream.scorer.requests import Request
from stream.wire.meaning import ALL_ALIKE, EventKind, EventKinds
from stream.wire.records import NewInteraction

HOUR_MS = 3_600_000
NOW = 1_700_000_000_000


def request(
    user: str, met: list[tuple[str, int]], new: int, kind: str = "", limit: int = 200, weight: float = 1.0
) -> Request:
    """`met` are items with the hour of each; the last `new` of them came now."""
    entries = [Entry(NOW + hour * HOUR_MS, item, weight, kind) for item, hour in met]
    history = merge_entries(EMPTY, entries, limit)
    events = tuple(NewInteraction(item, NOW + hour * HOUR_MS, False, weight, kind) for item, hour in met[-new:] if new)
    return Request(0, 0, user.encode(), codec.read(codec.encode(history)), "event", events)


def pairs(counts: EventCounts, earlier: str, later: str) -> float:
    one, other = counts.counts.columns([earlier, later]).tolist()
    factors = counts.counts.pair_factors(np.array([counts.counts.newest_ms]))[0]
    return float((counts.counts.follows.count(one, other) * factors)[[1, 3]].sum())  # those that do not decay


def demand(counts: EventCounts, item: str) -> float:
    column = counts.counts.columns([item])[0]
    return 0.0 if column < 0 else float(counts.counts.demand[column, -1])


def test_an_event_is_counted_with_the_pairs_it_completes() -> None:
    counts = EventCounts(ALL_ALIKE)
    counts.count([request("u", [("a", 0)], 1)])
    counts.count([request("u", [("a", 0), ("b", 1)], 1)])
    counts.count([request("v", [("a", 0), ("b", 2), ("c", 3)], 3)])  # three events of one batch
    assert (demand(counts, "a"), demand(counts, "b"), demand(counts, "c")) == (2, 2, 1)
    assert pairs(counts, "a", "b") == 2
    assert pairs(counts, "b", "a") == 0
    assert pairs(counts, "a", "c") == pairs(counts, "b", "c") == 1


def test_a_refresh_without_news_changes_nothing() -> None:
    counts = EventCounts(ALL_ALIKE)
    counts.count([request("u", [("a", 0), ("b", 1)], 0)])
    assert counts.counts.events == 0


@pytest.mark.parametrize(("kind", "weight"), [("return", 1.0), ("", 0.0)])
def test_an_event_against_an_item_counts_for_nothing(kind: str, weight: float) -> None:
    counts = EventCounts(EventKinds({"return": EventKind(negative=True)}) if kind else ALL_ALIKE)
    counts.count([request("u", [("a", 0)], 1, kind=kind, weight=weight)])
    counts.count([request("v", [("a", 0), ("b", 1)], 2, kind=kind, weight=weight)])
    assert (demand(counts, "a"), demand(counts, "b")) == (0, 0)
    counts.count([request("w", [("a", 0), ("b", 1)], 2)])
    assert pairs(counts, "a", "b") == 1


def test_a_late_event_is_paired_with_what_came_before_it() -> None:
    counts = EventCounts(ALL_ALIKE)
    counts.count([request("u", [("a", 0)], 1), request("v", [("a", 0)], 1)])
    counts.count([request("u", [("a", 0), ("c", 5)], 1)])
    counts.count([request("u", [("a", 0), ("c", 5), ("b", 2)], 1)])  # arrives last, happened between
    assert pairs(counts, "a", "b") == 1
    assert pairs(counts, "c", "b") == 0


def test_users_are_described_as_they_are_and_nothing_they_met_is_listed() -> None:
    counts = EventCounts(ALL_ALIKE)
    asked = counts.asked(
        [request("u", [("a", 0), ("b", 1)], 0), request("v", [], 0)], np.array([NOW, NOW]), lambda user: ["b", "?"]
    )
    a, b = counts.columns(["a", "b"]).tolist()
    assert asked.columns[0].tolist() == [b, a]
    assert asked.lengths.tolist() == [2, 0]
    hidden = set(zip(asked.hidden.rows.tolist(), asked.hidden.columns.tolist(), strict=True))
    assert hidden == {(0, a), (0, b), (1, b)}


def test_what_left_the_history_stays_hidden() -> None:
    counts = EventCounts(ALL_ALIKE)
    counts.count([request("v", [("a", 0)], 1)])
    long = request("u", [(item, hour) for hour, item in enumerate("abcde")], 0, limit=3)
    asked = counts.asked([long], np.array([NOW]))
    assert set(counts.columns("abcde").tolist()) - {-1} <= set(asked.hidden.columns.tolist())
    assert asked.lengths.tolist() == [3]


def test_what_may_be_met_again_is_a_place_with_its_rhythm() -> None:
    counts = EventCounts(EventKinds({"buy": EventKind(hides="30m")}))
    again = request("u", [("a", 0), ("b", 1), ("a", 4)], 0, kind="buy")
    asked = counts.asked([again], np.array([NOW + 5 * HOUR_MS]))
    assert len(asked.hidden.columns) == 0
    assert asked.times is not None
    assert asked.gaps_ms is not None
    place = asked.columns[0].tolist().index(counts.columns(["a"])[0])
    assert (asked.times[0, place], asked.gaps_ms[0, place]) == (2, 4 * HOUR_MS)
