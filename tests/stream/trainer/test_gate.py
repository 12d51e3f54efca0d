"""What may go live: evidence that is honest, and a verdict that asks for no more than it can know."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.batch import Histories
from model.errors import NonFiniteScores
from model.items import ItemIndex
from model.popularity import DecayedPopularity
from model.ranker import Hidden, Ranked
from model.recommend import Recommender
from state.history import EMPTY, Entry, History, merge_entries
from stream.trainer.changed_users import Changed
from stream.trainer.exam import Exam, pack
from stream.trainer.gate import Evidence, GateConfig, judge
from stream.trainer.holdout import hold_out

SOUND = Evidence(500, True, 0.20, 0.30, 0.10, 0.15, 0.20, 0.30, lower=-0.001, coverage=90, live_coverage=100)


def history(*times_ms: int) -> History:
    return merge_entries(EMPTY, [Entry(time_ms, f"i{time_ms}", 1.0) for time_ms in times_ms], 200)


# -- the verdict -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "gates"),
    [
        ({}, set()),
        ({"live_ndcg": None, "live_recall": None, "lower": None}, set()),  # the first model
        ({"ndcg": 0.15, "lower": -0.06}, {"holdout"}),  # half of the interval is narrower than the loss
        ({"ndcg": 0.09, "lower": -0.12}, {"holdout", "popularity"}),
        ({"coverage": 60}, {"coverage"}),
        ({"finite": False}, {"finite"}),
        ({"ndcg": float("nan")}, {"finite"}),
        ({"users": 5}, {"holdout"}),
        ({"ndcg": 0.10, "live_ndcg": None, "lower": None}, {"popularity"}),  # a tie is no reason to exist
        ({"ndcg": 0.09, "live_ndcg": 0.05, "lower": 0.01}, set()),  # worse than popularity, but live is worse yet
        ({"ndcg": 0.09, "live_ndcg": 0.085, "lower": -0.001}, {"popularity"}),
    ],
)
def test_each_gate_refuses_its_own_fault(changes: dict, gates: set) -> None:
    assert judge(replace(SOUND, **changes), GateConfig()).keys() == gates


def test_what_a_measured_reranker_lists_may_be_above_popularity_in_the_models_place() -> None:
    below = replace(SOUND, ndcg=0.09, live_ndcg=0.085, lower=-0.001)
    assert not judge(below, GateConfig(), served_above_popularity=True)
    worse = replace(below, ndcg=0.05, lower=-0.06)
    assert judge(worse, GateConfig(), served_above_popularity=True).keys() == {"holdout"}


@given(st.floats(0.001, 0.1))
def test_few_users_do_not_lock_out_an_equal_candidate_nor_let_a_clearly_worse_one_in(error: float) -> None:
    equal = replace(SOUND, ndcg=0.2, lower=-1.96 * error)
    worse = replace(SOUND, ndcg=0.2 - 1.5 * error, lower=-3.46 * error, popularity_ndcg=-1.0)
    config = GateConfig(margin=0.001)
    assert not judge(equal, config)
    assert judge(worse, config).keys() == {"holdout"}


def test_an_equal_candidate_passes_four_times_in_five_however_few_are_asked() -> None:
    rng, passed = np.random.default_rng(0), 0
    for _ in range(500):
        differences = rng.normal(0.0, 0.1, 50)
        mean, error = differences.mean(), differences.std() / np.sqrt(50)
        passed += not judge(replace(SOUND, ndcg=0.2 + mean, lower=mean - 1.96 * error), GateConfig())
    assert 0.74 < passed / 500 < 0.86


# -- the questions -----------------------------------------------------------------------------------------------------


def test_one_moment_cuts_everybody_and_what_live_learnt_is_no_question() -> None:
    changed = {
        b"ann": (history(10, 20, 95), Changed(0, 0, 3)),
        b"bob": (history(30, 40, 96), Changed(0, 99, 0)),  # arrived late: live knew later ones of his
        b"cem": (history(50, 60, 70), Changed(0, 0, 3)),
        b"dan": (history(97), Changed(0, 0, 1)),  # nothing before the cut
        b"eve": (history(12, 13, 14), Changed(0, 0, 3)),
    }
    known, questions = hold_out(changed, share=0.2)
    assert {user: question.answer for user, question in questions.items()} == {b"ann": ("i95",)}
    assert questions[b"ann"].known == known[b"ann"] == history(10, 20)
    assert known.keys() == {b"ann", b"bob", b"cem", b"eve"}
    assert known[b"bob"] == history(30, 40, 96)


def test_users_who_leave_within_minutes_are_asked_about_their_own_newest() -> None:
    changed = {f"u{n}".encode(): (history(*range(100 * n + 1, 100 * n + 11)), Changed(0, 0, 10)) for n in range(30)}
    known, questions = hold_out(changed, share=0.1, least_users=20)
    assert len(questions) == len(known) == 30
    assert questions[b"u7"].answer == ("i710",)
    assert known[b"u7"].newest_ms == 709


@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=2),
        st.tuples(st.lists(st.integers(1, 99), min_size=1, unique=True), st.integers(0, 99)),
        min_size=1,
    ),
    st.floats(0.05, 0.5),
    st.sampled_from([0, 10]),
)
def test_nothing_held_out_is_taught_and_nothing_else_is_lost(users: dict, share: float, least_users: int) -> None:
    changed = {user: (history(*times), Changed(0, seen, 0)) for user, (times, seen) in users.items()}
    known, questions = hold_out(changed, share, least_users)
    for user, (whole, change) in changed.items():
        taught = set(known[user].items) if user in known else set()
        asked = set(questions[user].answer) if user in questions else set()
        assert not taught & asked
        assert taught | asked <= set(whole.items)
        seen = {item for item, time_ms in zip(whole.items, whole.times_ms, strict=True) if time_ms <= change.seen_ms}
        assert seen <= taught
        if user in questions:
            assert taught | asked == set(whole.items)
            assert taught


# -- the exam ----------------------------------------------------------------------------------------------------------


class Fixed:
    """Ranks everybody the same list."""

    def __init__(self, items: ItemIndex, *names: str, fails: bool = False) -> None:
        self.items, self._names, self._fails = items, names, fails

    def rank(self, histories: Histories, k: int, hidden: Hidden | None = None) -> Ranked:
        if self._fails:
            raise NonFiniteScores("test")
        row = self.items.columns(self._names)
        return Ranked(np.tile(row, (len(histories), 1)), np.zeros((len(histories), len(row)), np.float32))


def fixed(items: ItemIndex, *names: str, fails: bool = False) -> Recommender:
    """`Fixed` has what an exam asks of a model, without being one."""
    return cast(Recommender, Fixed(items, *names, fails=fails))


def exam() -> tuple[Exam, ItemIndex]:
    items = ItemIndex([f"i{n}" for n in (95, 96, 97, 1, 2)])
    users = {f"u{n}".encode(): (history(1, 2, 95 + n % 2), Changed(0, 50, 1)) for n in range(40)}
    return Exam(items, list(hold_out(users, 0.5, least_users=40)[1].values())), items


def test_all_arms_answer_the_same_questions_in_the_candidates_columns() -> None:
    questions, items = exam()
    assert len(questions) == 40
    older = ItemIndex(["i2", "i96"])  # the live catalogue is smaller and in another order
    evidence = questions.evidence(
        fixed(items, "i95", "i96"),
        fixed(older, "i96", "i2"),
        DecayedPopularity(items).fit(pack(items, [history(97)])),
        np.random.default_rng(0),
    )
    second = 1 / np.log2(3)
    assert evidence.ndcg == pytest.approx((1 + second) / 2)
    assert evidence.live_ndcg == pytest.approx(0.5)
    assert evidence.recall == 1.0
    assert evidence.popularity_ndcg is not None and evidence.ndcg is not None
    assert evidence.popularity_ndcg < evidence.ndcg
    assert evidence.difference == pytest.approx(second / 2)
    assert evidence.lower is not None and evidence.difference is not None
    assert 0.1 < evidence.lower < evidence.difference
    assert (evidence.coverage, evidence.live_coverage) == (2, 2)


def test_a_candidate_without_sound_scores_is_not_finite_and_a_live_one_defends_nothing() -> None:
    questions, items = exam()
    popularity = DecayedPopularity(items).fit(pack(items, [history(97)]))
    rng = np.random.default_rng(0)
    assert judge(questions.evidence(None, None, popularity, rng), GateConfig()).keys() == {"finite"}
    broken = fixed(items, fails=True)
    assert not questions.evidence(broken, None, popularity, rng).finite
    assert questions.evidence(fixed(items, "i95"), broken, popularity, rng).live_ndcg is None


def test_no_questions_no_verdict() -> None:
    items = ItemIndex(["i1"])
    evidence = Exam(items, []).evidence(fixed(items, "i1"), None, DecayedPopularity(items), np.random.default_rng(0))
    assert evidence.users == 0
    assert "holdout" in judge(evidence, GateConfig())
