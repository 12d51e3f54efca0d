"""A reranker serves only where it is better, on answers that it has not learnt from."""

import numpy as np
import torch

from model.rerank.choice import ChoiceConfig, RerankerChoice, choose_reranker
from model.rerank.reranker import Examples, Reranker, RerankerConfig

CONFIG = ChoiceConfig(reranker=RerankerConfig(learning_rate=0.05, least_examples=50, updates=100, epochs=2))
PLACES = 12


def world(questions: int, seed: int, follows: float, wanted: float, modelled: int = 4) -> Examples:
    """The answer is the candidate with the largest first feature with probability `follows`, else the one with the
    largest second feature, the demand, with probability `wanted`, else any. The model's own list is any order."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(questions, PLACES, 2)).astype(np.float32)
    draw, any_place = rng.random(questions), rng.integers(0, PLACES, questions)
    answers = np.where(draw < follows + wanted, items[:, :, 1].argmax(1), any_place)
    answers = np.where(draw < follows, items[:, :, 0].argmax(1), answers)
    users = np.ones((questions, 1), dtype=np.float32)
    return Examples(items, users, np.ones((questions, PLACES), bool), answers, np.full(questions, modelled))


def start(wanted: int) -> Reranker:
    return Reranker(torch.tensor([0.0, 1.0] if wanted == 1 else [1.0, 0.0]), users=1, hidden=4)


def choose(examples: Examples, serving: Reranker | None = None, beside_model: bool = False) -> RerankerChoice:
    return choose_reranker(examples, serving, start, [1], CONFIG, seed=0, beside_model=beside_model)


def constant(first: float, second: float) -> Reranker:
    return Reranker(torch.tensor([first, second]), users=1, hidden=4).eval()


def test_one_that_orders_better_is_chosen() -> None:
    choice = choose(world(1_500, 0, follows=0.7, wanted=0.1))
    assert choice.reranker is not None
    assert not choice.why
    assert choice.above_demand
    assert choice.ndcg > choice.demand_ndcg
    assert choice.questions == 375


def test_one_that_only_repeats_what_everybody_wants_is_not() -> None:
    choice = choose(world(1_500, 0, follows=0.0, wanted=0.8))
    assert choice.reranker is None
    assert not choice.above_demand
    assert "differs from lists without it" in choice.why


def test_few_answers_leave_the_serving_one() -> None:
    serving = constant(1, 0)
    choice = choose(world(40, 0, follows=0.9, wanted=0.0), serving)
    assert choice.reranker is serving
    assert "too few" in choice.why


def test_a_successor_that_is_not_worse_takes_over() -> None:
    serving = constant(1, 0.2)
    choice = choose(world(1_500, 1, follows=0.7, wanted=0.1), serving)
    assert choice.reranker is not None
    assert choice.reranker is not serving


def test_a_serving_one_that_harms_is_dropped() -> None:
    harmful = constant(-1, -1)
    choice = choose(world(1_500, 2, follows=0.0, wanted=0.8), harmful)
    assert choice.reranker is None
    assert "worse than lists without it" in choice.why


def test_the_models_own_list_counts_by_its_places() -> None:
    examples = world(1_500, 3, follows=0.7, wanted=0.1)
    first = Examples(examples.items, examples.users, examples.valid, np.zeros(1_500, np.int64), examples.modelled)
    choice = choose(first)
    assert choice.model_ndcg == 1  # the answer is always the model's first
    assert choice.reranker is None


def test_beside_a_model_only_lists_of_a_model_are_evidence() -> None:
    before, since = world(1_000, 4, follows=0.7, wanted=0.1, modelled=0), world(400, 5, follows=0.7, wanted=0.1)
    examples = Examples.joined([before, since])
    assert choose(examples, beside_model=True).questions == 100
    assert choose(examples).questions == 350
    none_yet = choose(before, beside_model=True)
    assert (none_yet.reranker, none_yet.questions) == (None, 0)
    assert "too few" in none_yet.why
