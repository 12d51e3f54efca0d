"""The interaction that a recommendation is said to stem from is the one it does stem from."""

import numpy as np
import pytest

from model.batch import Histories
from model.explain import because
from model.recommend import Recommender
from tests.support.pairs import paired_model


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return paired_model()


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
