"""Popularity as it is at every moment: counts of a plain loop, decayed, without what the user has met."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.batch import Histories
from model.items import ItemIndex
from model.study.fresh_popularity import DecayingCounts, FreshPopularity, fresh_popularity_ranks
from model.study.interactions import Interactions, Timeline

DAY = 86_400_000
ITEMS = [f"i{n}" for n in range(6)]
EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 8)), min_size=1, max_size=40)


@given(EVENTS, st.sampled_from([0.5, 2.0, 30.0]))
def test_ranks_are_those_of_a_plain_loop(rows: list[tuple[int, int, int]], half_life_days: float) -> None:
    users, items, days = (np.array(column) for column in zip(*rows, strict=True))
    log = Interactions.ordered("log", users, items, days * DAY, ITEMS)
    events = np.arange(len(log))
    ranks = fresh_popularity_ranks(log, Timeline(log), events, half_life_days, cutoff=3)
    for event in events.tolist():
        user, item, time_ms = log.users[event], int(log.items[event]), log.times_ms[event]
        counts, met = np.zeros(len(ITEMS)), set()
        for other in range(event):
            if (log.users[other], log.times_ms[other]) == (user, time_ms):
                continue  # of the same moment
            counts[log.items[other]] += 2.0 ** ((log.times_ms[other] / DAY - 8) / half_life_days)
            if log.users[other] == user:
                met.add(int(log.items[other]))
        order = sorted((n for n in range(len(ITEMS)) if n not in met and counts[n]), key=lambda n: (-counts[n], n))
        expected = order.index(item) + 1 if item in order[:3] else 0
        assert ranks[event] == expected


def test_counts_outlast_any_time() -> None:
    counts = DecayingCounts(3, half_life_days=1.0)
    for item, day in ((0, 0), (0, 0), (1, 400), (2, 1200), (2, 20_000)):
        counts.add(np.array([item]), np.array([day * DAY]), np.ones(1, np.float32))
    assert np.isfinite(counts.values).all() and counts.values.argmax() == 2
    nobody = np.empty(0, np.int64)
    assert counts.rank_of(2, nobody) == 1 and counts.rank_of(2, np.array([2])) <= 1


def test_as_a_ranker_it_knows_nothing_later_than_the_user() -> None:
    index = ItemIndex(ITEMS)
    fitted = Histories.pack(
        index, [(("i1",), (0,), (1.0,)), (("i2",), (5 * DAY,), (1.0,)), (("i2",), (6 * DAY,), (1.0,))]
    )
    asked = Histories.pack(index, [(("i0",), (DAY,), (1.0,)), (("i0",), (9 * DAY,), (1.0,)), ((), (), ())])
    ranked = FreshPopularity(index, 2.0).fit(fitted).rank(asked, 2)
    assert ranked.columns[:, 0].tolist() == [1, 2, 2]
    assert np.isfinite(ranked.scores).all() and ranked.scores[0, 1] == 0
