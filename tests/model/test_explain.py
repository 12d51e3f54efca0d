"""The interaction that a recommendation is said to stem from is the one it does stem from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.batch import Histories
from model.config import ItemItemConfig, preset
from model.explain import because
from model.items import ItemIndex
from model.learner import Learner
from model.recommend import Recommender

ITEMS = 40  # in pairs that are always met one after the other: 0 and 1, 2 and 3, ...


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(300):
        for pair in rng.permutation(ITEMS // 2)[:6]:
            rows += [(user, 2 * pair), (user, 2 * pair + 1)]
    config = replace(preset("stream"), dims=(32, 64), item_item=ItemItemConfig(neighbours=5))
    items = ItemIndex([f"i{n}" for n in range(ITEMS)])
    learner = Learner.fresh(config, items, seed=0, device=torch.device("cpu"))
    learner.fit(Histories.from_rows(np.array(rows), 300), epochs=30)
    return learner.recommender("v")


def history(*columns: int) -> Histories:
    """Newest first."""
    n = len(columns)
    return Histories(np.array([0, n]), np.array(columns), np.arange(n, 0, -1), np.ones(n, np.float32))


def test_an_item_is_shown_because_of_its_companion(recommender: Recommender) -> None:
    seen = (20, 4, 12, 30)
    ranked = recommender.rank(history(*seen), 4)
    assert set(ranked.columns[0]) == {column + 1 for column in seen}
    places = because(recommender, history(*seen), ranked.columns[0])
    assert [seen[place] for place in places] == [column - 1 for column in ranked.columns[0]]


def test_nothing_known_explains_nothing(recommender: Recommender) -> None:
    assert because(recommender, history(), np.array([3, 4])).tolist() == [-1, -1]
    assert because(recommender, history(20, 4), np.array([], dtype=np.int64)).tolist() == []
