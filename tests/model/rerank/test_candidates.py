"""Candidates and their features: those of a loop over a user's history, none hidden, none twice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.batch import Histories
from model.ranker import Hidden
from model.rerank.asked import Asked
from model.rerank.candidates import CandidateConfig, Followers, candidates
from model.rerank.counts import CountsConfig, StreamCounts
from model.rerank.features import USER_FEATURES, feature_names, item_features, user_features
from model.rerank.pairs import counted_events

ITEMS, HOUR_MS = 8, 3_600_000
CONFIG = CountsConfig(demand_days=(1.0, 0.0), pair_days=(2.0, 0.0), followers=ITEMS)
sequences = st.lists(st.permutations(range(ITEMS)).map(lambda p: p[:4]), min_size=1, max_size=6)


def asked(histories: list[list[tuple[int, int]]], now_ms: int, hidden: Hidden | None = None) -> Asked:
    """Users with (item, time) newest first."""
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    flat = [entry for history in histories for entry in history]
    columns, times_ms = (np.array([entry[k] for entry in flat], dtype=np.int64) for k in (0, 1))
    packed = Histories(offsets, columns, times_ms, np.ones(len(flat), np.float32))
    return Asked.of(packed, np.full(len(histories), now_ms), hidden)


def learnt(given: list[list[int]]) -> tuple[StreamCounts, list[list[tuple[int, int]]]]:
    """Counts of users who met items an hour apart, oldest first, and their histories, newest first."""
    counts = StreamCounts(CONFIG)
    counts.known([str(item) for item in range(ITEMS)])
    histories: list[list[tuple[int, int]]] = [[] for _ in given]
    for hour in range(1, 5):
        for user, sequence in enumerate(given):
            before = asked([histories[user]], hour * HOUR_MS)
            counts.add(counted_events(before, np.array([user]), np.array([sequence[hour - 1]])))
            histories[user].insert(0, (sequence[hour - 1], hour * HOUR_MS))
    return counts, histories


@given(sequences)
def test_shares_are_those_of_a_loop(given: list[list[int]]) -> None:
    counts, histories = learnt(given)
    now_ms = 6 * HOUR_MS
    users = asked(histories, now_ms)
    columns = np.tile(np.arange(ITEMS), (len(histories), 1))
    found = Followers(counts, users).of(columns)
    factors = counts.pair_factors(np.array([now_ms]))[0]
    for user, history in enumerate(histories):
        for item in range(ITEMS):
            expected = np.zeros(4)
            for place, (earlier, _) in enumerate(history):
                row = counts.follows.row_of[earlier] if earlier < len(counts.follows.row_of) else -1
                if row >= 0:
                    total = counts.follows.totals[row] * factors
                    expected += counts.follows.count(earlier, item) * factors / (total + 1) * 2 ** (-place / 2)
            np.testing.assert_allclose(found[user, item], expected, rtol=1e-4, atol=1e-6)


@given(sequences, st.sets(st.tuples(st.integers(0, 5), st.integers(0, ITEMS - 1))), st.integers(1, 10))
def test_candidates_are_distinct_and_not_hidden(
    given: list[list[int]], hidden: set[tuple[int, int]], kept: int
) -> None:
    counts, histories = learnt(given)
    pairs = sorted(pair for pair in hidden if pair[0] < len(histories))
    nothing = np.empty(0, dtype=np.int64)
    barred = Hidden(
        np.array([row for row, _ in pairs], dtype=np.int64) if pairs else nothing,
        np.array([column for _, column in pairs], dtype=np.int64) if pairs else nothing,
    )
    users = asked(histories, 6 * HOUR_MS, barred)
    model = np.tile(np.array([3, 3, -1, 5]), (len(histories), 1))
    config = CandidateConfig(kept=kept)
    found = candidates(counts, users, Followers(counts, users), config, model)
    assert found.shape[1] <= kept
    counted = {item for sequence in given for item in sequence}
    for user, row in enumerate(found.tolist()):
        named = [item for item in row if item >= 0]
        assert row == named + [-1] * (len(row) - len(named))
        allowed = {item for item in counted | {3, 5} if (user, item) not in hidden}
        assert len(named) == len(set(named)) == min(kept, len(allowed))
        assert set(named) <= allowed
        if 3 in allowed:
            assert named[0] == 3  # the model's own best come first


def test_a_user_without_history_gets_what_is_wanted() -> None:
    counts, _ = learnt([[0, 1, 2, 3], [0, 1, 2, 4], [0, 5, 6, 7]])
    users = asked([[]], 5 * HOUR_MS)
    followers = Followers(counts, users)
    found = candidates(counts, users, followers, CandidateConfig(wanted=3))
    # 0 was met by all but hours ago, 1 and 2 by two; with one day and no decay the number decides.
    assert found[0].tolist() == [0, 2, 1]
    features = item_features(counts, users, followers, found, None)
    assert features.shape == (1, 3, len(feature_names(counts.config)))
    assert np.isfinite(features).all()
    user = dict(zip(USER_FEATURES, user_features(users)[0].tolist(), strict=True))
    assert (user["no history"], user["one item"], user["hours since the last"]) == (1, 0, 0)


def test_items_of_one_moment_follow_each_other_and_not_by_their_order() -> None:
    counts = StreamCounts(CONFIG)
    counts.known(["a", "b", "c"])
    nobody = asked([[], [], []], HOUR_MS)
    counts.add(counted_events(nobody, np.array([7, 7, 8]), np.array([0, 1, 2])))
    assert counts.follows.count(0, 1)[:2].sum() > 0
    np.testing.assert_array_equal(counts.follows.count(0, 1), counts.follows.count(1, 0))
    assert counts.follows.count(1, 2).sum() == 0  # somebody else


def test_what_was_met_before_is_described() -> None:
    counts, _ = learnt([[0, 1, 2, 3]])
    users = asked(
        [[(3, 4 * HOUR_MS), (1, 2 * HOUR_MS)]], 28 * HOUR_MS, Hidden(np.empty(0, np.int64), np.empty(0, np.int64))
    )
    columns = np.array([[1, 0, 3]])
    features = item_features(counts, users, Followers(counts, users), columns, None)[0]
    names = feature_names(counts.config)
    met = features[:, names.index("met")]
    assert met.tolist() == [1, 0, 1]
    np.testing.assert_allclose(features[:, names.index("days since")], np.log1p([26 / 24, 0, 1]), rtol=1e-6)
    np.testing.assert_allclose(features[:, names.index("moments since")], np.log1p([2, 0, 1]), rtol=1e-6)


def test_items_that_the_model_does_not_know_say_so() -> None:
    counts, histories = learnt([[0, 1, 2, 3]])
    users = asked(histories, 5 * HOUR_MS)
    scores = np.array([[[1.5, 3.0], [np.nan, np.nan]]], dtype=np.float32)
    features = item_features(counts, users, Followers(counts, users), np.array([[4, 5]]), scores)[0]
    assert np.isfinite(features).all()
    assert features[:, feature_names(counts.config).index("known")].tolist() == [1, 0]
