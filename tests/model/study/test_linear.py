"""Each baseline is right in a world where its answer is known, and obeys the contract of every ranker."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.batch import Histories
from model.items import ItemIndex
from model.popularity import DecayedPopularity
from model.ranker import Ranker
from model.study.linear import CoVisit, Ease, ItemKnn
from model.study.multvae import MultVae, MultVaeConfig
from model.weighting import Weighting

ITEMS = ItemIndex([f"i{n}" for n in range(20)])
CPU = torch.device("cpu")
RECENT = Weighting("exponential_rank", half_life=3.0)


def checkerboard(users: int = 120) -> Histories:
    rng = np.random.default_rng(0)
    rows = [(user, item) for user in range(users) for item in rng.permutation(np.arange(user % 2, 20, 2))[:6]]
    return Histories.from_rows(np.array(rows), users)


FITTED: dict[str, Callable[[Histories], Ranker]] = {
    "popularity": lambda histories: DecayedPopularity(ITEMS).fit(histories),
    "covisit": lambda histories: CoVisit(ITEMS).fit(histories),
    "itemknn": lambda histories: ItemKnn(ITEMS, neighbours=8).fit(histories),
    "ease": lambda histories: Ease(ITEMS, RECENT, ridge=5.0).fit(histories),
    "multvae": lambda histories: MultVae(
        ITEMS, MultVaeConfig(hidden=32, latent=8, batch_users=32, learning_rate=5e-3), seed=0, device=CPU
    ).fit(histories, epochs=40),
}


@pytest.mark.parametrize("name", [name for name in FITTED if name != "popularity"])
def test_it_learns_the_checkerboard(name: str) -> None:
    histories = checkerboard()
    top = FITTED[name](histories).rank(histories, 2).columns
    assert (top % 2 == np.arange(len(histories))[:, None] % 2).mean() > 0.95


@pytest.mark.parametrize("name", FITTED)
def test_the_contract_of_a_ranker(name: str) -> None:
    histories = checkerboard(30)
    ranker = FITTED[name](histories)
    empty = Histories.pack(ITEMS, [((), (), ()), (("x",), (1,), (1.0,)), (("i3",), (1,), (1.0,))])
    for given in (histories, empty):
        ranked = ranker.rank(given, 25)
        assert ranked.columns.shape == ranked.scores.shape == (len(given), 25)
        for user in range(len(given)):
            seen = set(given.columns[given.offsets[user] : given.offsets[user + 1]])
            shown = ranked.columns[user][: 20 - len(seen)]
            assert len(set(shown) | seen) == 20 and not set(shown) & seen
            assert (ranked.columns[user][20 - len(seen) :] == -1).all()
            assert np.isfinite(ranked.scores[user][: 20 - len(seen)]).all()
            assert (np.diff(ranked.scores[user][: 20 - len(seen)]) <= 0).all()


def test_ease_is_the_ridge_regression_without_itself() -> None:
    """Column j of B minimises |X_j - X b|^2 + ridge |b|^2 with b_j = 0."""
    histories = checkerboard(40)
    x = np.zeros((40, 20))
    x[np.repeat(np.arange(40), histories.lengths), histories.columns] = 1
    weights = Ease(ITEMS, ridge=7.0).fit(histories).weights
    for item in (0, 5, 19):
        others = np.delete(np.arange(20), item)
        best = np.linalg.solve(x[:, others].T @ x[:, others] + 7 * np.eye(19), x[:, others].T @ x[:, item])
        np.testing.assert_allclose(weights[others, item], best, atol=1e-5)
        assert weights[item, item] == 0


def test_covisit_follows_the_last_item() -> None:
    rows = [(user, item) for user in range(5) for item in (4, 9, 2)] + [(5, 9)]
    histories = Histories.from_rows(np.array(rows), 6)
    assert CoVisit(ITEMS, window=1).fit(histories).rank(histories, 1).columns[5, 0] == 2


def test_popularity_forgets() -> None:
    day = 86_400_000
    old, new = (("i1", "i2"), (0, 0), (1.0, 1.0)), (("i3",), (10 * day,), (1.0,))
    histories = Histories.pack(ITEMS, [old, old, old, new])
    nobody = Histories.pack(ITEMS, [((), (), ())])
    assert DecayedPopularity(ITEMS).fit(histories).rank(nobody, 1).columns[0, 0] == 1
    assert DecayedPopularity(ITEMS, half_life_days=1.0).fit(histories).rank(nobody, 1).columns[0, 0] == 3
