"""Slates: the model's list in front, nobody shown what is forbidden, answers found by their place."""

import numpy as np
import torch

from model.ranker import Hidden
from model.rerank.asked import Asked
from model.rerank.candidates import CandidateConfig
from model.rerank.counts import CountedEvents, CountsConfig, StreamCounts
from model.rerank.features import USER_FEATURES, feature_names
from model.rerank.reranker import Reranker
from model.rerank.slates import ModelLists, Slates, make_slates

DAY_MS = 86_400_000
NOTHING = np.empty(0, dtype=np.int64)


def counts_of(items: list[int]) -> StreamCounts:
    """Items 0 .. 5, each event one hour after the last."""
    counts = StreamCounts(CountsConfig(followers=4))
    counts.known([str(item) for item in range(6)])
    times_ms = DAY_MS + np.arange(len(items)) * 3_600_000
    ones = np.ones(len(items), np.float32)
    pairs = NOTHING, NOTHING, NOTHING, np.empty(0, np.float32), np.empty(0, bool)
    counts.add(CountedEvents(np.array(items), times_ms, ones, *pairs))
    return counts


def users(count: int, hidden: Hidden) -> Asked:
    padded = np.full((count, 1), -1, dtype=np.int64)
    return Asked(padded, np.zeros((count, 1), np.int64), np.zeros(count, np.int64), np.full(count, 2 * DAY_MS), hidden)


def slates(model: ModelLists | None = None) -> Slates:
    hidden = Hidden(np.array([1]), np.array([0]))
    return make_slates(counts_of([0, 0, 0, 1, 1, 2]), users(2, hidden), CandidateConfig(), model)


def by_demand() -> Reranker:
    weights = torch.zeros(len(feature_names(CountsConfig(followers=4))))
    weights[0] = 1.0
    return Reranker(weights, len(USER_FEATURES), hidden=3)


def test_without_a_model_the_candidates_are_what_is_wanted() -> None:
    made = slates()
    assert {column for column in made.columns[0].tolist() if column >= 0} == {0, 1, 2}
    assert {column for column in made.columns[1].tolist() if column >= 0} == {1, 2}
    assert made.modelled.tolist() == [0, 0]


def test_the_models_list_stands_in_front_and_is_described() -> None:
    best = np.array([[5, 1], [4, -1]])
    terms = np.array([2.0, 1.0], np.float32)
    made = slates(ModelLists(best, lambda wanted: np.where(wanted[..., None] >= 4, terms, np.float32(np.nan))))
    assert made.modelled.tolist() == [2, 1]
    assert made.columns[0, :2].tolist() == [5, 1]
    assert made.columns[1, 0] == 4
    known = feature_names(CountsConfig(followers=4)).index("known")
    assert made.items[0, :2, known].tolist() == [1, 0]


def test_the_best_are_in_order_and_nobody_is_shown_what_is_forbidden() -> None:
    made = slates()
    columns, scores = made.best(by_demand(), 3)
    assert columns[0].tolist() == [0, 1, 2] or columns[0, 0] in (1, 2)  # the newest events count most
    assert (np.diff(scores[0]) <= 0).all()
    assert columns[1, -1] == -1
    forbidden = np.arange(6) == 1
    assert 1 not in made.best(by_demand(), 3, forbidden)[0]


def test_an_answer_is_the_place_of_the_item_that_came() -> None:
    made = slates()
    examples = made.answered(np.array([0, 1, 1]), np.array([1, 0, -1]))
    assert made.columns[0, examples.answers[0]] == 1
    assert examples.answers[1:].tolist() == [-1, -1]  # hidden, and never counted
    one = made.row(1)
    np.testing.assert_array_equal(one.columns[0], made.columns[1])
    assert one.items.dtype == np.float16
