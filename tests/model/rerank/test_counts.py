"""Counts of a stream: those of a loop over events, in whatever order the events arrive, and gone when taken back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.rerank.counts import CountedEvents, CountsConfig, StreamCounts
from model.rerank.decay import DAY_MS

ITEMS = 6
CONFIG = CountsConfig(demand_days=(0.5, 8.0, 0.0), pair_days=(3.0, 0.0), followers=ITEMS)

# Events (item, hours, weight) with pairs (earlier item, close): hours far apart, so that the origin has to move.
events = st.lists(
    st.tuples(
        st.integers(0, ITEMS - 1),
        st.integers(1, 24 * 400),
        st.lists(st.tuples(st.integers(0, ITEMS - 1), st.booleans()), max_size=4),
    ),
    min_size=1,
    max_size=12,
)
Event = tuple[int, int, list[tuple[int, bool]]]


def counted(given: list[Event], weight: float = 1.0) -> CountedEvents:
    pairs = [(earlier, item, hours, close) for item, hours, before in given for earlier, close in before]
    earlier, later, hours, close = (
        np.array([pair[k] for pair in pairs], dtype=bool if k == 3 else np.int64) for k in range(4)
    )
    return CountedEvents(
        np.array([item for item, _, _ in given]),
        np.array([hours for _, hours, _ in given]) * 3_600_000,
        np.full(len(given), weight, dtype=np.float32),
        earlier,
        later,
        hours * 3_600_000,
        np.full(len(pairs), weight, dtype=np.float32),
        close,
    )


def stream(batches: list[CountedEvents], config: CountsConfig = CONFIG) -> StreamCounts:
    counts = StreamCounts(config)
    counts.known([str(item) for item in range(ITEMS)])
    for batch in batches:
        counts.add(batch)
    return counts


def values(counts: StreamCounts, now_ms: int) -> tuple[np.ndarray, np.ndarray]:
    """Demand [C, H] and pairs [C, C, S] as they are at `now_ms`."""
    now = np.array([now_ms])
    demand = counts.demand[:ITEMS] * counts.demand_factors(now)
    pairs = [[counts.follows.count(a, b) for b in range(ITEMS)] for a in range(ITEMS)]
    return demand, np.array(pairs) * counts.pair_factors(now)[0]


@given(events)
def test_counts_are_those_of_a_loop_over_events(given: list[Event]) -> None:
    now_ms = max(hours for _, hours, _ in given) * 3_600_000
    demand, pairs = np.zeros((ITEMS, 3)), np.zeros((ITEMS, ITEMS, 4))

    def decayed(hours: int, days: float) -> float:
        return 2 ** (-(now_ms - hours * 3_600_000) / DAY_MS / days) if days else 1.0

    for item, hours, before in given:
        for half_life, days in enumerate(CONFIG.demand_days):
            demand[item, half_life] += decayed(hours, days)
        for earlier, close in before:
            for half_life, days in enumerate(CONFIG.pair_days):
                pairs[earlier, item, half_life + (0 if close else 2)] += decayed(hours, days)
    found = values(stream([counted(given)]), now_ms)
    np.testing.assert_allclose(found[0], demand, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found[1], pairs, rtol=1e-4, atol=1e-6)


@given(events, st.randoms(use_true_random=False), st.integers(1, 5))
def test_neither_order_nor_batches_matter(given: list[Event], random: object, size: int) -> None:
    shuffled = list(given)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    batches = [counted(shuffled[start : start + size]) for start in range(0, len(shuffled), size)]
    one, other = stream([counted(given)]), stream(batches)
    now_ms = one.newest_ms
    assert other.newest_ms == now_ms
    for mine, theirs in zip(values(one, now_ms), values(other, now_ms), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(one.last_ms, other.last_ms)
    np.testing.assert_array_equal(one.first_ms, other.first_ms)


@given(events, events)
def test_what_is_taken_back_was_never_there(kept: list[Event], gone: list[Event]) -> None:
    now_ms = max(hours for _, hours, _ in (*kept, *gone)) * 3_600_000
    expected = values(stream([counted(kept)]), now_ms)
    found = values(stream([counted(kept), counted(gone), counted(gone, weight=-1.0)]), now_ms)
    for mine, theirs in zip(expected, found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


@given(events)
def test_a_restored_state_goes_on_alike(given: list[Event]) -> None:
    half = len(given) // 2
    whole = stream([counted(given[:half]), counted(given[half:])] if half else [counted(given)])
    first = stream([counted(given[:half])] if half else [])
    again = StreamCounts.restore(CONFIG, first.ids, {name: values.copy() for name, values in first.state().items()})
    again.add(counted(given[half:]))
    assert again.events == whole.events
    for mine, theirs in zip(values(whole, whole.newest_ms), values(again, whole.newest_ms), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_state_of_other_half_lives_is_refused() -> None:
    state = stream([counted([(0, 1, [])])]).state()
    with pytest.raises(ValueError, match="demand has shape"):
        StreamCounts.restore(CountsConfig(), ["0"], state)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(2, 40)), min_size=1, max_size=60))
def test_a_full_row_keeps_the_heaviest_and_the_newest_follower(pairs: list[tuple[int, int]]) -> None:
    """Pairs come one by one; item 0 and 1 are followed by many. A row of 4 never loses what leads by more than 3."""
    counts = StreamCounts(CountsConfig(demand_days=(1.0,), pair_days=(0.0,), followers=4))
    counts.known([str(item) for item in range(41)])
    exact: dict[tuple[int, int], int] = {}
    for hour, (earlier, later) in enumerate(pairs, 1):
        counts.add(counted([(later, hour, [(earlier, True)])]))
        exact[earlier, later] = exact.get((earlier, later), 0) + 1
    newest = pairs[-1]
    assert counts.follows.count(*newest)[0] > 0
    for pair, count in exact.items():
        assert counts.follows.count(*pair)[0] <= count
    totals = {earlier: sum(count for pair, count in exact.items() if pair[0] == earlier) for earlier in (0, 1)}
    for earlier, total in totals.items():
        row = counts.follows.row_of[earlier]
        assert (counts.follows.totals[row].sum() if row >= 0 else 0) == total


def test_of_too_many_rows_the_lightest_go() -> None:
    counts = StreamCounts(CountsConfig(demand_days=(1.0,), pair_days=(0.0,), followers=2, most_rows=4))
    counts.known([str(item) for item in range(10)])
    for item in range(4):
        counts.add(counted([(9, 1, [(item, True)] * (item + 1))]))
    counts.add(counted([(9, 2, [(8, True)])]))
    kept = [item for item in range(9) if counts.follows.row_of[item] >= 0]
    assert kept == [2, 3, 8]
    assert counts.follows.count(3, 9)[0] == 4
    assert counts.follows.count(8, 9)[0] == 1
    assert counts.follows.count(0, 9)[0] == 0


def test_what_is_wanted_now_stands_before_what_was_wanted_once() -> None:
    counts = StreamCounts(CountsConfig(demand_days=(1.0, 8.0)))
    counts.known(["old", "new", "never"])
    events: list[Event] = [*[(0, 1, [])] * 5, (1, 24 * 60, [])]
    counts.add(counted(events))
    assert counts.most_wanted(3).tolist() == [1, 0]
