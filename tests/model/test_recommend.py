"""Ranking in blocks is ranking at once, and lower precision stays within what it promises."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.batch import Histories
from model.config import ItemItemConfig, preset
from model.items import ItemIndex
from model.learner import Learner
from model.recommend import Recommender
from model.scoring import DEFAULT_LIMITS, Limits, Precision

CPU = torch.device("cpu")
ITEMS = 40


def world(users: int = 60) -> Histories:
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 15, users)
    rows = [
        (user, item) for user, n in enumerate(lengths) for item in rng.permutation(np.arange(user % 2, ITEMS, 2))[:n]
    ]
    return Histories.from_rows(np.array(rows), users)


@pytest.fixture(scope="module")
def learner() -> Learner:
    config = replace(preset("stream"), dims=(8, 16), item_item=ItemItemConfig(neighbours=7))
    learner = Learner.fresh(config, ItemIndex([f"i{n}" for n in range(ITEMS)]), seed=2, device=CPU)
    learner.fit(world(), epochs=5)
    return learner


def limited(learner: Learner, limits: Limits) -> Recommender:
    weights = (learner.neighbours, learner.neighbour_weights)
    return Recommender("v", learner.items, learner.config, copy.deepcopy(learner.average), *weights, limits=limits)


def test_blocks_of_users_and_of_items_change_nothing(learner: Learner) -> None:
    recommender = learner.recommender("v")
    whole = recommender.rank(world(), 12)
    in_blocks = limited(learner, Limits(items=7, scores=7 * 11, places=50))
    parts = in_blocks.rank(world(), 12)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-4, atol=1e-5)
    assert (parts.columns == whole.columns).mean() > 0.99  # equal scores may change places
    torch.testing.assert_close(in_blocks.scores(world()), recommender.scores(world()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [7, DEFAULT_LIMITS.items])
def test_the_item_item_term_of_large_catalogues_is_that_of_small_ones(learner: Learner, block: int) -> None:
    dense = limited(learner, Limits(items=block)).scores(world())
    sparse = limited(learner, Limits(items=block, small_catalogue=0)).scores(world())
    torch.testing.assert_close(sparse, dense, rtol=1e-4, atol=1e-5)


def test_the_mix_is_of_standard_scores(learner: Learner) -> None:
    def scores(share: float) -> torch.Tensor:
        config = replace(learner.config, item_item=replace(learner.config.item_item, share=share))
        weights = (learner.neighbours, learner.neighbour_weights)
        return Recommender("v", learner.items, config, copy.deepcopy(learner.average), *weights).scores(world())

    alone, item_item, mixed = scores(0.0), scores(1.0), scores(0.3)
    unseen = torch.isfinite(mixed)
    # The diffusion's scores of seen items are masked, so that its z-scores are known up to shift and scale only.
    for user in range(0, 60, 7):
        row = unseen[user]
        left = mixed[user][row] - 0.3 * item_item[user][row]
        slope, offset = np.polyfit(alone[user][row].numpy(), left.numpy(), 1)
        assert slope > 0
        np.testing.assert_allclose(left, slope * alone[user][row] + offset, atol=1e-3)


@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, Limits(items=7), Limits(small_catalogue=0)])
def test_terms_of_a_few_items_are_what_the_mix_is_made_of(learner: Learner, limits: Limits) -> None:
    recommender, histories = limited(learner, limits), world()
    every = np.tile(np.arange(ITEMS), (len(histories), 1))
    every[3, 5] = -1
    terms = recommender.terms(histories, every)
    assert np.isnan(terms[3, 5]).all()
    share = learner.config.item_item.share
    mixed = (1 - share) * terms[..., 0] + share * terms[..., 1]
    scores = recommender.scores(histories).numpy()
    known = np.isfinite(scores) & (every >= 0)
    np.testing.assert_allclose(mixed[known], scores[known], rtol=1e-3, atol=1e-4)
    turned = recommender.terms(histories, every[:, ::-1].copy())
    np.testing.assert_allclose(turned[:, ::-1], terms, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, Limits(items=7), Limits(scores=3 * ITEMS)])
def test_lists_with_their_terms_are_the_lists_and_the_terms(learner: Learner, limits: Limits) -> None:
    recommender, histories = limited(learner, limits), world()
    every = np.tile(np.arange(ITEMS), (len(histories), 1))
    every[2, 4] = -1
    for k in (5, ITEMS + 3):
        alone = recommender.rank(histories, k)
        ranked, terms = recommender.rank_with_terms(histories, k)
        np.testing.assert_array_equal(ranked.columns, alone.columns)
        np.testing.assert_allclose(ranked.scores, alone.scores, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(terms(every), recommender.terms(histories, every), rtol=1e-4, atol=1e-5)


def test_lists_without_an_item_item_term_keep_their_scores(learner: Learner) -> None:
    alone = copy.copy(learner)
    alone.config = replace(learner.config, item_item=replace(learner.config.item_item, share=0.0))
    recommender = alone.recommender("v")
    ranked, terms = recommender.rank_with_terms(world(), 5)
    np.testing.assert_array_equal(ranked.scores, recommender.rank(world(), 5).scores)
    assert (terms(ranked.columns)[..., 1] == 0).all()


@pytest.mark.parametrize(("precision", "error"), [("tf32", 1e-5), ("bfloat16", 2e-2)])
def test_lower_precision_keeps_its_promise(learner: Learner, precision: Precision, error: float) -> None:
    exact = learner.recommender("v").scores(world())
    weights = (learner.neighbours, learner.neighbour_weights)
    rough = Recommender(
        "v", learner.items, learner.config, copy.deepcopy(learner.average), *weights, precision=precision
    )
    found = rough.scores(world())
    unseen = torch.isfinite(exact)
    assert torch.equal(unseen, torch.isfinite(found))
    assert float((found[unseen] - exact[unseen]).abs().max()) <= error * float(exact[unseen].abs().max())


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-4), ("tf32", 5e-3), ("bfloat16", 2e-2)])
def test_cuda_scores_as_the_cpu_does(learner: Learner, precision: Precision, error: float) -> None:
    exact = learner.recommender("v").scores(world())
    network = copy.deepcopy(learner.average).to("cuda")
    weights = (learner.neighbours, learner.neighbour_weights)
    found = (
        Recommender("v", learner.items, learner.config, network, *weights, precision=precision).scores(world()).cpu()
    )
    unseen = torch.isfinite(exact)
    assert float((found[unseen] - exact[unseen]).abs().max()) <= error * float(exact[unseen].abs().max())


def test_one_recording_ranks_batches_of_every_shape(learner: Learner) -> None:
    recommender = learner.recommender("v")
    batches = [world(users) for users in (3, 1, 50)]
    empty = Histories(np.zeros(3, np.int64), *(np.empty(0, dtype) for dtype in (np.int64, np.int64, np.float32)))
    for histories in [*batches, empty, batches[0]]:
        ranked = recommender.rank(histories, 7)
        best = recommender.scores(histories).topk(7, dim=1)  # call by call
        np.testing.assert_allclose(ranked.scores, best.values, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            np.take_along_axis(recommender.scores(histories).numpy(), ranked.columns, 1), best.values, atol=1e-6
        )
    assert recommender.rank(batches[0], 3).columns.shape == (3, 3)


@pytest.mark.filterwarnings("error:Using len")  # of the recorder, which takes it for a constant
def test_one_recording_finds_the_few_best_of_many_items() -> None:
    config = replace(preset("stream"), dims=(8, 16), item_item=ItemItemConfig(neighbours=7))
    learner = Learner.fresh(config, ItemIndex([f"i{n}" for n in range(2_000)]), seed=2, device=CPU)
    learner.fit(world(), epochs=1)
    recommender = learner.recommender("v")
    for users in (60, 2):
        best = recommender.scores(world(users)).topk(3, dim=1)
        np.testing.assert_allclose(recommender.rank(world(users), 3).scores, best.values, rtol=1e-5, atol=1e-6)


def test_unknown_items_are_as_if_they_were_not_there(learner: Learner) -> None:
    recommender = learner.recommender("v")
    strengths = np.ones(3, np.float32)
    with_unknown = Histories(np.array([0, 3]), np.array([4, -1, 6]), np.array([3, 2, 1]), strengths)
    without = Histories(np.array([0, 2]), np.array([4, 6]), np.array([3, 1]), strengths[:2])
    assert np.array_equal(recommender.rank(with_unknown, 5).columns, recommender.rank(without, 5).columns)
