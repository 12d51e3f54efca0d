"""A history is what its user did strictly before, whatever the log's order of lines."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.study.interactions import Interactions, Timeline

ITEMS = [f"i{n}" for n in range(6)]
EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 8)), min_size=1, max_size=40)


def log_of(rows: list[tuple[int, int, int]]) -> Interactions:
    users, items, times = (np.array(column) for column in zip(*rows, strict=True))
    return Interactions.ordered("log", users, items, times, ITEMS)


@given(EVENTS)
def test_histories_are_those_of_a_plain_loop(rows: list[tuple[int, int, int]]) -> None:
    log = log_of(rows)
    timeline, events = Timeline(log, history_items=4), np.arange(len(log))
    histories = timeline.histories(events, np.arange(len(ITEMS)))
    for event in events.tolist():
        user, item, time_ms = log.users[event], log.items[event], log.times_ms[event]
        last: dict[int, int] = {}
        for other in range(len(log)):
            if log.users[other] == user and log.times_ms[other] < time_ms:
                last[int(log.items[other])] = int(log.times_ms[other])
        expected = sorted(last, key=lambda known: (-last[known], -known))[:4]
        found = histories.columns[histories.offsets[event] : histories.offsets[event + 1]]
        assert found.tolist() == expected
        assert timeline.lengths(events)[event] == len(last)
        assert timeline.repeats(events)[event] == (int(item) in last)


@given(EVENTS, st.randoms())
def test_the_order_of_lines_inside_a_moment_means_nothing(rows: list[tuple[int, int, int]], random) -> None:  # type: ignore[no-untyped-def]
    moments = defaultdict(list)
    for row in rows:
        moments[row[0], row[2]].append(row)
    shuffled = []
    for moment in moments.values():
        random.shuffle(moment)
        shuffled += moment
    first, second = log_of([row for moment in moments.values() for row in sorted(moment)]), log_of(shuffled)
    for name in ("users", "items", "times_ms"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


@given(EVENTS)
def test_a_moment_stands_together_and_repeated_lines_are_one(rows: list[tuple[int, int, int]]) -> None:
    log = log_of(rows)
    assert len(log) == len(set(rows))
    seen: set[tuple[int, int]] = set()
    for place, start in enumerate(log.moments.tolist()):
        moment = int(log.users[place]), int(log.times_ms[place])
        assert (start == place) == (moment not in seen)
        seen.add(moment)


def test_events_of_one_time_keep_the_order_of_the_log() -> None:
    log = log_of([(2, 5, 1), (0, 3, 1), (2, 1, 1), (1, 0, 0)])
    assert log.users.tolist() == [1, 2, 2, 0] and log.items.tolist() == [0, 1, 5, 3]


def test_items_that_a_model_does_not_know_are_left_out() -> None:
    log = log_of([(0, 0, 0), (0, 1, 1), (0, 2, 2), (0, 3, 3)])
    known = np.array([0, -1, 1, -1, -1, -1])
    assert Timeline(log).histories(np.array([3]), known).columns.tolist() == [1, 0]
    assert Timeline(log).before(2, known).columns.tolist() == [0]
    assert Timeline(log).lengths(np.array([3])).tolist() == [3]  # of the user, not of the model


def test_a_log_out_of_order_is_refused() -> None:
    column = np.array([0, 0])
    with pytest.raises(ValueError, match="not in time order"):
        Interactions("log", column, column, np.array([2, 1]), np.ones(2, np.float32), ITEMS)
