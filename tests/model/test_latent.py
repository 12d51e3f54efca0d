"""The latent variants: clusters that are there are found, and each cluster's encoder sees its own items only."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.batch import Histories
from model.config import preset
from model.items import ItemIndex
from model.latent import LatentChain, LatentConfig, LatentDenoiser, cluster_items
from model.learner import Learner
from model.sampler import plain_chain
from model.schedule import NoiseSchedule, ScheduleConfig
from model.study.embedding import item_embedding

CPU = torch.device("cpu")


def checkerboard(users: int = 120, items: int = 20, length: int = 6) -> Histories:
    rng = np.random.default_rng(0)
    rows = [(user, item) for user in range(users) for item in rng.permutation(np.arange(user % 2, items, 2))[:length]]
    return Histories.from_rows(np.array(rows), users)


def test_clusters_of_a_checkerboard_are_its_colours() -> None:
    embedding = item_embedding(checkerboard(), 20, width=4)
    clusters = cluster_items(embedding, 2, torch.Generator().manual_seed(0))
    assert len(set(clusters[::2].tolist())) == len(set(clusters[1::2].tolist())) == 1
    assert clusters[0] != clusters[1]


def test_the_largest_cluster_comes_first() -> None:
    embedding = torch.tensor([[0.0], [9.0], [9.1], [0.1], [9.2], [9.3]])
    assert cluster_items(embedding, 2, torch.Generator().manual_seed(1)).tolist() == [1, 0, 0, 1, 0, 0]


def network(items: int = 12) -> LatentDenoiser:
    torch.manual_seed(0)
    clusters = torch.tensor([0] * 8 + [1] * 4)[:items]
    return LatentDenoiser(items, (7,), 4, 0.0, LatentConfig(width=6, clusters=2), clusters).eval()


def test_latent_units_are_shared_out_by_cluster_size() -> None:
    assert torch.bincount(network().owners).tolist() == [4, 2]


def test_an_item_reaches_the_latents_of_its_own_cluster_only() -> None:
    model = network()
    nothing, _ = model.encoded(torch.zeros(1, 12))
    for item in range(12):
        moved = (model.encoded(torch.eye(12)[item : item + 1])[0] != nothing)[0]
        assert torch.equal(moved, model.owners == model.clusters[item])


def test_the_chain_from_sparse_histories_is_the_plain_one() -> None:
    model, schedule = network(), NoiseSchedule(ScheduleConfig(steps=7, scale=0.1))
    columns, weights = torch.tensor([[3, 9, 0], [5, 0, 0]]), torch.tensor([[1.0, 0.5, 0.25], [1.0, 0.0, 0.0]])
    x = torch.zeros(2, 12).scatter_add_(1, columns, weights)
    latents = plain_chain(model.inner, schedule, model.encoded(x)[0])
    torch.testing.assert_close(LatentChain(model, schedule).run(columns, weights).v, latents)


@pytest.mark.parametrize("name", ["l-diffrec-ml1m", "lt-diffrec-ml1m"])
def test_both_learn_the_checkerboard_and_grow(name: str) -> None:
    config = replace(
        preset(name),
        dims=(16,),
        latent=LatentConfig(width=16, kl_cap=0.01, learning_rate=1e-2, balance=0.003, balance_floor=0.0005),
        batch_users=32,
        learning_rate=5e-3,
    )
    histories, index = checkerboard(), ItemIndex([str(item) for item in range(20)])
    learner = Learner.fresh(config, index, seed=1, device=CPU, clusters=torch.arange(20) % 2)
    learner.fit(histories, epochs=60)
    top = learner.recommender("v").rank(histories, k=2).columns
    assert (top % 2 == np.arange(120)[:, None] % 2).mean() > 0.95
    before = learner.denoiser.encode.weight.detach().clone()
    assert learner.grow(["new"]) == 1
    assert torch.equal(learner.denoiser.encode.weight[:, :20], before)
    clusters = learner.denoiser.clusters
    assert isinstance(clusters, torch.Tensor) and len(clusters) == 21
    learner.fit(histories, epochs=1)


def test_annealing_goes_from_start_to_floor() -> None:
    config = LatentConfig(balance=0.03, balance_floor=0.005, balance_passes=500, kl_cap=0.3, kl_updates=200)
    assert [config.balance_at(passes) for passes in (0, 250, 500, 9000)] == [0.03, 0.015, 0.005, 0.005]
    assert [config.kl_weight_at(updates) for updates in (0, 30, 60, 9000)] == [0.0, 0.15, 0.3, 0.3]
