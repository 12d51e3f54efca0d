"""The interaction that a recommendation is said to stem from is the one, and by the amount that is said."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batch import Histories, joined
from model.config import ModelConfig, preset
from model.explain import because, left_out, reasons
from model.item_item import ItemItemConfig
from model.items import ItemIndex
from model.learner import Learner
from model.recommend import Recommender
from model.scoring import Limits
from model.weighting import Weighting
from tests.support.pairs import ITEMS, paired_model


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return paired_model()


def history(*columns: int) -> Histories:
    """Newest first."""
    n = len(columns)
    return Histories(np.array([0, n]), np.array(columns, dtype=np.int64), np.arange(n, 0, -1), np.ones(n, np.float32))


def test_an_item_is_shown_because_of_its_companion(recommender: Recommender) -> None:
    seen = (20, 4, 12, 30)
    ranked = recommender.rank(history(*seen), 4)
    assert set(ranked.columns[0]) == {column + 1 for column in seen}
    places = because(recommender, history(*seen), ranked.columns[0])
    assert [seen[place] for place in places] == [column - 1 for column in ranked.columns[0]]


def test_nothing_known_explains_nothing(recommender: Recommender) -> None:
    assert because(recommender, history(), np.array([3, 4])).tolist() == [-1, -1]
    assert because(recommender, history(20, 4), np.array([], dtype=np.int64)).tolist() == []


def untrained(config: ModelConfig, limits: Limits | None = None) -> Recommender:
    """Scores without sense and with every part: what is said of them has to be right nevertheless."""
    rng = np.random.default_rng(1)
    rows = np.array([(user, item) for user in range(60) for item in rng.permutation(ITEMS)[:8]])
    items = ItemIndex([f"i{n}" for n in range(ITEMS)])
    learner = Learner.fresh(config, items, seed=0, device=torch.device("cpu"))
    learner.fit(Histories.from_rows(rows, 60), epochs=1)
    found = learner.recommender("v")
    if limits is None:
        return found
    assert found.scorer.item_item is not None
    neighbours, weights = learner.neighbours, learner.neighbour_weights
    return Recommender("v", items, config, learner.served, neighbours, weights, limits=limits)


STREAM = replace(preset("stream"), dims=(8, 16), item_item=ItemItemConfig(neighbours=5))
MODELS = {
    "as served": untrained(STREAM),
    "by blocks of items": untrained(STREAM, Limits(items=16, small_catalogue=8)),
    "without an item-item term": untrained(replace(STREAM, item_item=ItemItemConfig(share=0.0))),
    "weights by rank and length": untrained(replace(STREAM, weighting=Weighting("linear_rank", least=0.1))),
}

users = st.lists(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=30).map(tuple), min_size=1, max_size=4)


@pytest.mark.parametrize("name", MODELS)
def test_without_the_named_item_the_score_is_lower_by_the_stated_amount(name: str) -> None:
    model = MODELS[name]

    @settings(max_examples=15)
    @given(seen=users, data=st.data())
    def check(seen: list[tuple[int, ...]], data: st.DataObject) -> None:
        histories = joined([history(*columns) for columns in seen])
        listed = model.rank(histories, 3).columns
        found = reasons(model, histories, listed, 2)
        user = data.draw(st.integers(0, len(seen) - 1))
        item = data.draw(st.integers(0, 2))
        for place, amount in zip(found.places[user, item], found.amounts[user, item], strict=True):
            if place < 0:
                assert amount == 0
                continue
            kept = history(*(column for at, column in enumerate(seen[user]) if at != place))
            with_it = float(model.scores(history(*seen[user]))[0, listed[user, item]])
            without = float(model.scores(kept)[0, listed[user, item]])
            assert amount == pytest.approx(with_it - without, abs=1e-4)

    check()


def test_the_largest_amounts_are_named_and_every_interaction_is_tried() -> None:
    model, seen = MODELS["as served"], (3, 14, 15, 9, 26, 5)
    owed = left_out(model, history(*seen), np.array([[1, 2, 4]]))[0]
    assert owed.shape == (6, 3)
    found = reasons(model, history(*seen), np.array([[1, 2, 4]]), 9)
    for item in range(3):
        raising = [place for place in np.argsort(-owed[:, item], kind="stable") if owed[place, item] > 0]
        assert found.places[0, item].tolist() == raising + [-1] * (9 - len(raising))
        np.testing.assert_allclose(found.amounts[0, item, : len(raising)], owed[raising, item])


def test_users_together_and_alone_and_in_blocks_get_the_same() -> None:
    model = MODELS["as served"]
    seen = [(1, 2, 3), (), (7,), tuple(range(25))]
    histories, asked = joined([history(*columns) for columns in seen]), np.full((4, 2), -1)
    asked[:] = (30, 31)
    together = left_out(model, histories, asked)
    assert (together[1] == 0).all() and (together[2, 1:] == 0).all()
    for user, columns in enumerate(seen):
        alone = left_out(model, history(*columns), asked[user : user + 1])[0]
        np.testing.assert_allclose(together[user, : len(alone)], alone, atol=1e-5)
    asked[0, 0] = -1  # a list that ends early
    assert reasons(model, histories, asked, 2).places[0, 0].tolist() == [-1, -1]
