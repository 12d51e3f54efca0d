"""Worlds with a known answer: items met in pairs, one after the other (0 and 1, 2 and 3, ...), or in two halves."""

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from model.batch import Histories
from model.config import ItemItemConfig, ModelConfig, preset
from model.items import ItemIndex
from model.learner import Learner
from model.recommend import Recommender

__all__ = ["ITEMS", "halved_model", "paired_model"]

ITEMS = 40
USERS = 300


def paired_model(share: float = 0.7) -> Recommender:
    """A model that has learnt the pairs; its items are called i0, i1, ..."""
    return _learner(share).recommender("v")


@cache
def _learner(share: float) -> Learner:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        for pair in rng.permutation(ITEMS // 2)[:6]:
            rows += [(user, 2 * pair), (user, 2 * pair + 1)]
    learner = Learner.fresh(_config(share), _items(), seed=0, device=torch.device("cpu"))
    learner.fit(Histories.from_rows(np.array(rows), USERS), epochs=4)
    return learner


def halved_model() -> Recommender:
    """A model without an item-item term whose output rows say that even items are alike, and so are odd ones."""
    learner = Learner.fresh(_config(0.0), _items(), seed=0, device=torch.device("cpu"))
    half = torch.arange(ITEMS)[:, None] % 2 * 2.0 - 1.0
    with torch.no_grad():
        weight = learner.served.decode.weight
        weight.copy_(half * torch.linspace(1, 2, weight.shape[1]) + 0.2 * torch.randn(weight.shape).sin())
    return learner.recommender("v")


def _config(share: float) -> ModelConfig:
    return replace(preset("stream"), dims=(32, 64), item_item=ItemItemConfig(neighbours=5, share=share))


def _items() -> ItemIndex:
    return ItemIndex([f"i{n}" for n in range(ITEMS)])
