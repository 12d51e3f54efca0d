"""The reranker learns what users do next where it depends on the candidate and on the user, and only from enough."""

import numpy as np
import torch

from model.rerank.reranker import Examples, Reranker, RerankerConfig, fit_reranker

CONFIG = RerankerConfig(learning_rate=0.05, least_examples=50)


def world(questions: int, seed: int) -> Examples:
    """Users of two kinds, told by their second feature: one takes the candidate with the largest first feature, the
    other the one with the smallest."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(questions, 6, 3)).astype(np.float32)
    kind = rng.integers(0, 2, questions)
    users = np.stack([np.ones(questions), kind], 1).astype(np.float32)
    answers = np.where(kind == 1, items[:, :, 0].argmin(1), items[:, :, 0].argmax(1))
    return Examples(items, users, np.ones((questions, 6), bool), answers, np.full(questions, 6))


def untrained() -> Reranker:
    return Reranker(torch.tensor([1.0, 0.0, 0.0]), users=2, hidden=8)


def share_right(reranker: Reranker, examples: Examples) -> float:
    return float((reranker.scores(examples.items, examples.users, examples.valid).argmax(1) == examples.answers).mean())


def test_it_learns_what_depends_on_the_user() -> None:
    test = world(500, seed=1)
    before = untrained()
    learnt = fit_reranker(before, world(2000, seed=0), CONFIG, seed=0)
    assert share_right(before, test) < 0.6
    assert share_right(learnt, test) > 0.9


def test_it_learns_nothing_from_few_answers_or_when_stopped() -> None:
    before, few = untrained(), world(2000, seed=0)
    unanswered = Examples(
        few.items, few.users, few.valid, np.where(np.arange(2000) < 49, few.answers, -1), few.modelled
    )
    assert fit_reranker(before, unanswered, CONFIG, seed=0) is before
    assert fit_reranker(before, few, CONFIG, seed=0, stop=lambda: True) is before


def test_the_same_seed_gives_the_same_weights() -> None:
    one, other = (fit_reranker(untrained(), world(300, seed=0), CONFIG, seed=3) for _ in range(2))
    for mine, theirs in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_places_without_a_candidate_never_win() -> None:
    examples = world(20, seed=0)
    valid = examples.valid.copy()
    valid[:, 3:] = False
    scores = untrained().scores(examples.items, examples.users, valid)
    assert np.isneginf(scores[:, 3:]).all()
    assert np.isfinite(scores[:, :3]).all()


def test_parts_of_different_widths_are_joined() -> None:
    wide, narrow = world(3, seed=0), world(2, seed=1)
    narrow = Examples(
        narrow.items[:, :4], narrow.users, narrow.valid[:, :4], np.minimum(narrow.answers, 3), narrow.modelled
    )
    joined = Examples.joined([narrow, wide])
    assert joined.valid.sum(1).tolist() == [4, 4, 6, 6, 6]
    assert joined.answers.tolist() == [*narrow.answers, *wide.answers]
