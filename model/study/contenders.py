"""The models that a study can compare, by name, each with the settings that its tuning may choose from.

A contender yields fitted models one by one: one for every point of its grid, or the states during one training.
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
from model.study.catalogue import Catalogue
from model.study.embedding import item_embedding
from model.study.fresh_popularity import HALF_LIVES_DAYS, FreshPopularity
from model.study.linear import CoVisit, Ease, ItemItemAlone, ItemKnn
from model.study.multvae import MultVae, MultVaeConfig
from model.weighting import Weighting

__all__ = ["ALWAYS", "CONTENDERS", "FRESH_POPULARITY", "ITEM_ITEM", "ON_A_TIMELINE", "Contender", "Settings", "Trained"]

Settings = Mapping[str, float]

FRESH_POPULARITY, ITEM_ITEM = "fresh-popularity", "item-item"
ALWAYS = (FRESH_POPULARITY, ITEM_ITEM)  # rows of every table: a model that is not better than these is of no use
ON_A_TIMELINE = ("stream-first-stage", "stream-without-network")  # `stream` without one of its parts, for `global` only


@dataclass(frozen=True)
class Trained:
    """A fitted model and its settings."""

    ranker: Ranker
    settings: Settings


@dataclass(frozen=True)
class Contender:
    """`train(catalogue, histories, seed, device, chosen)` yields all candidates if `chosen` is None, else only the
    model with the `chosen` settings."""

    train: Callable[[Catalogue, Histories, int, torch.device, Settings | None], Iterator[Trained]]
    candidates: int  # how many `train` yields at most
    seeded: bool = True  # different seeds give different models
    second_stage: bool = False  # with the protocol `global` the second stage orders its lists, as when served


def _recency(half_life: float) -> Weighting:
    """0 stands for no weighting."""
    return Weighting("exponential_rank", half_life=half_life) if half_life else Weighting()


def _closed_form(build: Callable[..., Ranker], **choices: Sequence[float]) -> Contender:
    """`build(items, histories, **settings)` fits it; every combination of choices is a candidate."""
    grid = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]

    def train(
        catalogue: Catalogue, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
    ) -> Iterator[Trained]:
        for settings in grid if chosen is None else [chosen]:
            yield Trained(build(catalogue.items, histories, **settings), settings)

    return Contender(train, len(grid), seeded=False)


def _ease(half_lives: Sequence[float], ridges: Sequence[float]) -> Contender:
    """The half-life weighs the input only, so one inverse per ridge is enough for all half-lives."""

    def train(
        catalogue: Catalogue, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
    ) -> Iterator[Trained]:
        for ridge in ridges if chosen is None else [chosen["ridge"]]:
            fitted = Ease(catalogue.items, ridge=ridge).fit(histories)
            for half_life in half_lives if chosen is None else [chosen["half_life"]]:
                ease = Ease(catalogue.items, _recency(half_life), ridge)
                ease.weights = fitted.weights
                yield Trained(ease, {"ridge": ridge, "half_life": half_life})

    return Contender(train, len(half_lives) * len(ridges), seeded=False)


def _multvae(epochs: int, every: int) -> Contender:
    def train(
        catalogue: Catalogue, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
    ) -> Iterator[Trained]:
        model = MultVae(catalogue.items, MultVaeConfig(), seed=seed, device=device)
        if chosen is not None:
            yield Trained(model.fit(histories, epochs=int(chosen["epochs"])), chosen)
            return
        for epoch in range(every, epochs + 1, every):
            yield Trained(copy.deepcopy(model.fit(histories, epochs=every)), {"epochs": epoch})

    return Contender(train, epochs // every)


def _diffusion(config: ModelConfig, epochs: int, every: int, shares: Sequence[float] = (0.0,)) -> Contender:
    """The states after every `every` epochs, each with every share of the item-item term, are the candidates."""
    alone = replace(config, item_item=replace(config.item_item, share=0.0))

    def train(
        catalogue: Catalogue, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
    ) -> Iterator[Trained]:
        clusters = None
        if config.latent is not None:
            embedding = catalogue.embedding
            if embedding is None:
                embedding = item_embedding(histories, len(catalogue.items))
            clusters = cluster_items(embedding, config.latent.clusters, torch.Generator().manual_seed(0))
        learner = Learner.fresh(alone, catalogue.items, seed=seed, device=device, clusters=clusters)
        neighbours = weights = None
        if max(shares) > 0:
            neighbours, weights = item_item_weights(histories, len(catalogue.items), config.item_item, device)

        def shared(share: float) -> Recommender:
            mixed = replace(config, item_item=replace(config.item_item, share=share))
            served = copy.deepcopy(learner.served)
            return Recommender("study", catalogue.items, mixed, served, neighbours, weights)

        if chosen is not None:
            learner.fit(histories, epochs=int(chosen["epochs"]))
            yield Trained(shared(chosen["share"]), chosen)
            return
        for epoch in range(every, epochs + 1, every):
            learner.fit(histories, epochs=every)
            for share in shares:
                yield Trained(shared(share), {"epochs": epoch, "share": share})

    return Contender(train, epochs // every * len(shares))


def _fresh_popularity(
    catalogue: Catalogue, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
) -> Iterator[Trained]:
    if not catalogue.timed:  # without times counts cannot decay: the half-life is infinite
        yield Trained(DecayedPopularity(catalogue.items).fit(histories), {"half_life_days": float("inf")})
        return
    for days in HALF_LIVES_DAYS if chosen is None else [chosen["half_life_days"]]:
        yield Trained(FreshPopularity(catalogue.items, days).fit(histories), {"half_life_days": days})


def _item_item(
    catalogue: Catalogue, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
) -> Iterator[Trained]:
    yield Trained(ItemItemAlone(catalogue.items, preset("stream").item_item, device).fit(histories), {})


_HALF_LIVES = (2.0, 3.0, 4.0, 5.0, 8.0)
_RIDGES = (200.0, 500.0, 1000.0)
_STREAM = _diffusion(preset("stream"), 40, 10, (0.5, 0.6, 0.7, 0.8))

CONTENDERS: dict[str, Contender] = {
    FRESH_POPULARITY: Contender(_fresh_popularity, len(HALF_LIVES_DAYS), seeded=False),
    ITEM_ITEM: Contender(_item_item, 1, seeded=False),  # as it is served, so it has nothing to choose
    "popularity": _closed_form(lambda items, histories: DecayedPopularity(items).fit(histories)),
    "covisit": _closed_form(
        lambda items, histories, window: CoVisit(items, int(window)).fit(histories), window=(1, 2, 3, 5, 10)
    ),
    "itemknn": _closed_form(
        lambda items, histories, neighbours, half_life: ItemKnn(items, _recency(half_life), int(neighbours)).fit(
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
    "stream": replace(_STREAM, second_stage=True),
    "stream-first-stage": _STREAM,
    "stream-without-network": Contender(_item_item, 1, second_stage=True),
}
