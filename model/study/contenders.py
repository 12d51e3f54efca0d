"""What can be compared in a study, by name, each with the settings that its tuning may choose from.

A contender yields fitted models one by one: every point of its grid, or the states of one training as it goes on.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from model.batch import Histories
from model.config import ModelConfig, preset
from model.item_item import item_item_weights
from model.latent import cluster_items
from model.learner import Learner
from model.popularity import DecayedPopularity
from model.ranker import Ranker
from model.recommend import Recommender
from model.study.dataset import Dataset, item_embedding
from model.study.linear import CoVisit, Ease, ItemKnn
from model.study.multvae import MultVae, MultVaeConfig
from model.weighting import Weighting

__all__ = ["CONTENDERS", "Contender", "Settings", "Trained"]

Settings = Mapping[str, float]


@dataclass(frozen=True)
class Trained:
    """A fitted model and what was chosen for it."""

    ranker: Ranker
    settings: Settings


@dataclass(frozen=True)
class Contender:
    """`train(data, histories, seed, device, chosen)`: with `chosen` None all candidates, else the one chosen."""

    train: Callable[[Dataset, Histories, int, torch.device, Settings | None], Iterator[Trained]]
    candidates: int  # how many `train` yields at most
    seeded: bool = True  # another seed gives another model


def _recency(half_life: float) -> Weighting:
    """0 stands for no weighting."""
    return Weighting("exponential_rank", half_life=half_life) if half_life else Weighting()


def _closed_form(build: Callable[..., Ranker], **choices: Sequence[float]) -> Contender:
    """`build(data, histories, **settings)` fits it; every combination of choices is a candidate."""
    grid = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]

    def train(
        data: Dataset, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
    ) -> Iterator[Trained]:
        for settings in grid if chosen is None else [chosen]:
            yield Trained(build(data, histories, **settings), settings)

    return Contender(train, len(grid), seeded=False)


def _ease(half_lives: Sequence[float], ridges: Sequence[float]) -> Contender:
    """Half-lives weigh the input only, so one inverse per ridge serves them all."""

    def train(
        data: Dataset, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
    ) -> Iterator[Trained]:
        for ridge in ridges if chosen is None else [chosen["ridge"]]:
            fitted = Ease(data.items, ridge=ridge).fit(histories)
            for half_life in half_lives if chosen is None else [chosen["half_life"]]:
                ease = Ease(data.items, _recency(half_life), ridge)
                ease.weights = fitted.weights
                yield Trained(ease, {"ridge": ridge, "half_life": half_life})

    return Contender(train, len(half_lives) * len(ridges), seeded=False)


def _multvae(epochs: int, every: int) -> Contender:
    def train(
        data: Dataset, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
    ) -> Iterator[Trained]:
        model = MultVae(data.items, MultVaeConfig(), seed=seed, device=device)
        if chosen is not None:
            yield Trained(model.fit(histories, epochs=int(chosen["epochs"])), chosen)
            return
        for epoch in range(every, epochs + 1, every):
            yield Trained(copy.deepcopy(model.fit(histories, epochs=every)), {"epochs": epoch})

    return Contender(train, epochs // every)


def _diffusion(config: ModelConfig, epochs: int, every: int, shares: Sequence[float] = (0.0,)) -> Contender:
    """States after every few epochs; each share of the item-item term is a candidate on its own."""
    alone = replace(config, item_item=replace(config.item_item, share=0.0))

    def train(
        data: Dataset, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
    ) -> Iterator[Trained]:
        clusters = None
        if config.latent is not None:
            embedding = data.embedding if data.embedding is not None else item_embedding(histories, len(data.items))
            clusters = cluster_items(embedding, config.latent.clusters, torch.Generator().manual_seed(0))
        learner = Learner.fresh(alone, data.items, seed=seed, device=device, clusters=clusters)
        neighbours = weights = None
        if max(shares) > 0:
            neighbours, weights = item_item_weights(histories, len(data.items), config.item_item, device)

        def shared(share: float) -> Recommender:
            mixed = replace(config, item_item=replace(config.item_item, share=share))
            served = copy.deepcopy(learner.served)
            return Recommender("study", data.items, mixed, served, neighbours, weights)

        if chosen is not None:
            learner.fit(histories, epochs=int(chosen["epochs"]))
            yield Trained(shared(chosen["share"]), chosen)
            return
        for epoch in range(every, epochs + 1, every):
            learner.fit(histories, epochs=every)
            for share in shares:
                yield Trained(shared(share), {"epochs": epoch, "share": share})

    return Contender(train, epochs // every * len(shares))


_HALF_LIVES = (2.0, 3.0, 4.0, 5.0, 8.0)
_RIDGES = (200.0, 500.0, 1000.0)

CONTENDERS: dict[str, Contender] = {
    "popularity": _closed_form(lambda data, histories: DecayedPopularity(data.items).fit(histories)),
    "covisit": _closed_form(
        lambda data, histories, window: CoVisit(data.items, int(window)).fit(histories), window=(1, 2, 3, 5, 10)
    ),
    "itemknn": _closed_form(
        lambda data, histories, neighbours, half_life: ItemKnn(data.items, _recency(half_life), int(neighbours)).fit(
            histories
        ),
        neighbours=(50, 100, 200, 400),
        half_life=(0.0, 3.0, 5.0, 8.0),
    ),
    "ease": _ease((0.0,), _RIDGES),
    "ease-recent": _ease(_HALF_LIVES, _RIDGES),
    "multvae": _multvae(100, 10),
    "diffrec": _diffusion(preset("diffrec-ml1m"), 60, 5),
    "t-diffrec-linear": _diffusion(preset("t-diffrec-ml1m"), 60, 5),
    "l-diffrec": _diffusion(preset("l-diffrec-ml1m"), 200, 10),
    "lt-diffrec": _diffusion(preset("lt-diffrec-ml1m"), 200, 10),
    "t-diffrec": _diffusion(preset("stream-diffusion"), 60, 10),
    "stream": _diffusion(preset("stream"), 40, 10, (0.5, 0.6, 0.7, 0.8)),
}
