"""Intervals of a difference: right however often they are read, whoever the outcomes come from."""

import numpy as np
import pytest

from model.evaluate import Interval
from stream.pilots.counts import RANKS
from stream.pilots.difference import LEAST, Pair, difference, rate
from stream.pilots.pilot import BUCKETS

ALPHA, SHOWN = 0.05, 0.05


class Stream:
    """Users with hit rates and activities of their own, who act again and again; everybody is in a bucket."""

    def __init__(self, seed: int, users: int = 1_500, spread: float = 6.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.rates = self.rng.beta(0.4 * spread, 0.6 * spread, users)
        activity = self.rng.permutation(1 / (1 + np.arange(users)) ** 0.5)
        self.activity = activity / activity.sum()
        self.place, self.bucket = self.rng.random(users), self.rng.integers(0, BUCKETS, users)

    def outcomes(self, count: int, share: float, effect: float, level: float = 1.0) -> Pair:
        """Tables of users inside and outside of `share`; hit rates of those inside are larger by the share `effect`."""
        users = self.rng.choice(len(self.rates), count, p=self.activity)
        inside = self.place[users] < share
        chance = np.clip(level * self.rates[users] * np.where(inside, 1 + effect, 1), 0, 1)
        ranks = np.where(self.rng.random(count) < chance, self.rng.integers(1, RANKS + 1, count), 0)
        tables = np.zeros((2, BUCKETS, RANKS + 1), dtype=np.int64)
        np.add.at(tables, (np.where(inside, 0, 1), self.bucket[users], ranks), 1)
        return tables[0], tables[1]


def looks(seed: int, effect: float, stages: list[tuple[float, float, int]], block: int = 1_000) -> list[Interval]:
    """An interval after every block of each stage (share, level of everybody's hit rate, blocks)."""
    stream, found = Stream(seed), []
    pairs: list[Pair] = []
    for share, level, blocks in stages:
        pairs.append((np.zeros((BUCKETS, RANKS + 1), int), np.zeros((BUCKETS, RANKS + 1), int)))
        for _ in range(blocks):
            for total, new in zip(pairs[-1], stream.outcomes(block, share, effect, level), strict=True):
                total += new
            interval = difference(pairs, "hit rate", alpha=ALPHA, shown=SHOWN)
            if interval is not None:
                found.append(interval)
    return found


STEADY = [(0.5, 1.0, 20)]
STAGED = [(0.1, 1.0, 5), (0.3, 0.6, 8), (0.6, 0.3, 7)]  # everybody's hit rate falls while the variant grows


@pytest.mark.parametrize("stages", [STEADY, STAGED], ids=["steady", "staged"])
def test_without_a_difference_zero_is_left_in_at_most_five_runs_of_a_hundred(stages: list) -> None:
    left = sum(any(i.low > 0 or i.high < 0 for i in looks(seed, 0.0, stages)) for seed in range(100))
    assert left <= 5


def test_a_difference_is_seen_and_stays_inside() -> None:
    for seed in range(10):
        found = looks(seed, 0.5, STEADY)
        assert found[-1].low > 0
        assert found[-1].high - found[-1].low < 0.6 * (found[0].high - found[0].low)


def test_naive_intervals_of_the_same_outcomes_would_be_wrong() -> None:
    """What clustering is for: outcomes of one user are alike. Strangers in every bucket make the interval narrower."""
    (pair,) = [Stream(1, users=100, spread=0.5).outcomes(20_000, 0.5, 0.0)]
    rng = np.random.default_rng(2)
    shuffled = []
    for table in pair:
        rows = np.repeat(np.tile(np.arange(RANKS + 1), BUCKETS), table.ravel())
        mixed = np.zeros_like(table)
        np.add.at(mixed, (rng.integers(0, BUCKETS, len(rows)), rows), 1)
        shuffled.append(mixed)
    alike = difference([pair], "hit rate", alpha=ALPHA, shown=SHOWN)
    strangers = difference([(shuffled[0], shuffled[1])], "hit rate", alpha=ALPHA, shown=SHOWN)
    assert alike is not None and strangers is not None
    assert alike.mean == pytest.approx(strangers.mean)
    assert alike.high - alike.low > 3 * (strangers.high - strangers.low)


def test_answers_to_the_same_outcomes_are_compared_much_more_sharply() -> None:
    rng, users = np.random.default_rng(3), 400
    one, two = (np.zeros((BUCKETS, RANKS + 1), dtype=np.int64) for _ in range(2))
    buckets = rng.integers(0, BUCKETS, users)
    for user in rng.integers(0, users, 3_000).tolist():
        hit = user % 2 == 0  # half of the users are always hit: by both lists but for one outcome in twenty
        lost = hit and rng.random() < 0.05
        one[buckets[user], 3 if hit else 0] += 1
        two[buckets[user], 3 if hit and not lost else 0] += 1
    same = difference([(one, two)], "hit rate", alpha=ALPHA, shown=SHOWN, same=True)
    apart = difference([(one, two)], "hit rate", alpha=ALPHA, shown=SHOWN)
    assert same is not None and apart is not None
    assert same.low > 0 > apart.low
    assert same.mean == pytest.approx(0.025, abs=0.01)


def test_great_harm_is_seen_among_few_users() -> None:
    """Of 54 users half are always hit, and would never be: bounds for small differences alone would be far too wide."""
    mine, twin = (np.zeros((BUCKETS, RANKS + 1), dtype=np.int64) for _ in range(2))
    mine[:54, 0] = 4
    twin[:27, 0], twin[27:54, 3] = 4, 4
    found = difference([(mine, twin)], "hit rate", alpha=0.025, shown=0.02, same=True)
    assert found is not None
    assert found.high < 0


def test_an_earlier_rank_is_worth_more_to_ndcg_and_as_much_to_the_hit_rate() -> None:
    first, last = (np.zeros((BUCKETS, RANKS + 1), dtype=np.int64) for _ in range(2))
    first[:40, 1], last[:40, 10] = 5, 5
    first[:40, 0], last[:40, 0] = 5, 5
    first[:5, 0] += 1
    assert rate([first], "NDCG") == pytest.approx(200 / 405)
    assert rate([last], "NDCG") == pytest.approx(0.5 / np.log2(11))
    assert rate([], "NDCG") is None


def test_there_is_no_interval_before_enough_buckets_have_said_something() -> None:
    table = np.zeros((BUCKETS, RANKS + 1), dtype=np.int64)
    table[: LEAST - 1, :2] = 50
    assert difference([(table, table)], "hit rate", alpha=ALPHA, shown=SHOWN) is None
    table[LEAST - 1, :2] = 50
    assert difference([(table, table)], "hit rate", alpha=ALPHA, shown=SHOWN) is not None
    assert difference([], "hit rate", alpha=ALPHA, shown=SHOWN) is None


def test_buckets_that_are_all_alike_do_not_make_the_interval_narrower_than_independent_outcomes() -> None:
    one, two = (np.zeros((BUCKETS, RANKS + 1), dtype=np.int64) for _ in range(2))
    one[:, :2] = two[:, :2] = 10
    found = difference([(one, two)], "hit rate", alpha=ALPHA, shown=SHOWN)
    assert found is not None
    assert found.mean == 0
    assert found.high > 2 * np.sqrt(2 * 0.25 / (20 * BUCKETS))
