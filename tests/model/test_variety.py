"""Variety: off it changes nothing, and each part does what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.variety import VarietyConfig, standard_popularity, unit_vectors, varied

SCORES = np.array([[5.0, 4.0, 3.0, 2.0, 1.0]])


@given(
    st.lists(st.lists(st.integers(-50, 50), min_size=6, max_size=6), min_size=1, max_size=4),
    st.integers(1, 8),
    st.integers(0, 6),
)
def test_without_opinions_the_order_is_that_of_the_scores(rows: list[list[int]], count: int, missing: int) -> None:
    scores = np.array(rows, dtype=np.float32)
    scores[:, 6 - missing :] = -np.inf
    places = varied(scores, count, VarietyConfig(popular=1, alike=1, per_category=1))
    for row, found in zip(scores, places.tolist(), strict=True):
        order = np.argsort(-row, kind="stable").tolist()
        assert found == [place if row[place] > -np.inf else -1 for place in order[:count]]


def test_what_everybody_has_loses_by_its_popularity() -> None:
    popularity = np.array([[3.0, 0.0, 0.0, 0.0, -3.0]])
    assert varied(SCORES, 3, VarietyConfig(popular=0.1), popularity=popularity).tolist() == [[0, 1, 2]]
    assert varied(SCORES, 3, VarietyConfig(popular=1.0), popularity=popularity).tolist() == [[4, 1, 2]]


def test_what_is_like_an_item_above_it_stands_further_down() -> None:
    vectors = np.array([[[1, 0], [1, 0], [0, 1], [-1, 0], [0, 0]]], dtype=np.float32)
    assert varied(SCORES, 4, VarietyConfig(alike=0.1), vectors=vectors).tolist() == [[0, 1, 2, 3]]
    # 1 is the same as 0; 2 is at right angles to it, 3 its opposite, and 4 nothing is known of.
    assert varied(SCORES, 5, VarietyConfig(alike=10.0), vectors=vectors).tolist() == [[0, 2, 3, 4, 1]]


def test_no_category_has_more_than_its_share_even_if_the_list_is_shorter() -> None:
    categories = np.array([[[1, 0], [1, 0], [1, 1], [0, 1], [0, 0]]], dtype=bool)
    config = VarietyConfig(per_category=1)
    assert varied(SCORES, 4, config, categories=categories).tolist() == [[0, 3, 4, -1]]
    two = VarietyConfig(per_category=2)
    assert varied(SCORES, 4, two, categories=categories).tolist() == [[0, 1, 3, 4]]


def test_scores_of_any_scale_are_treated_alike() -> None:
    popularity = np.array([[2.0, 1.0, 0.0, -1.0, -2.0]])
    config = VarietyConfig(popular=0.9)
    expected = varied(SCORES, 5, config, popularity=popularity).tolist()
    assert varied(1000 * SCORES + 7, 5, config, popularity=popularity).tolist() == expected
    assert varied(np.full((1, 5), 3.0), 5, config, popularity=popularity).tolist() == [[4, 3, 2, 1, 0]]


def test_popularity_and_vectors_are_standardised() -> None:
    assert standard_popularity(np.zeros(3)).tolist() == [0, 0, 0]
    assert standard_popularity(np.empty(0)).tolist() == []
    values = standard_popularity(np.array([0.0, 9.0, 99.0]))
    assert values.mean() == pytest.approx(0, abs=1e-6) and values.std() == pytest.approx(1)
    assert unit_vectors(np.array([[2.0, 0.0], [0.0, 0.0]])).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("wrong", [{"popular": -1}, {"alike": float("nan")}, {"per_category": -1}, {"candidates": 0}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VarietyConfig(**wrong)  # type: ignore[arg-type]
    assert not VarietyConfig().on
