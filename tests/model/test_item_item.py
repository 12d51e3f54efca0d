"""The item-item term knows what comes next, and its counts are those of a loop over pairs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batch import Histories
from model.item_item import ItemItemConfig, item_item_weights


def dense(neighbours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    full = np.zeros((len(neighbours), len(neighbours)))
    for row, (columns, values) in enumerate(zip(neighbours, weights, strict=True)):
        np.add.at(full[row], columns, values)
    return full


def histories(sequences: list[list[int]]) -> Histories:
    """Oldest first."""
    rows = np.array([(user, item) for user, sequence in enumerate(sequences) for item in sequence])
    return Histories.from_rows(rows.reshape(-1, 2), len(sequences))


@settings(max_examples=30)
@given(st.lists(st.permutations(range(6)).map(lambda p: p[:4]), min_size=1, max_size=8), st.integers(1, 5))
def test_the_closed_form_is_the_regression_it_says(sequences: list[list[int]], window: int) -> None:
    config = ItemItemConfig(half_life=2.0, future_half_life=3.0, window=window, ridge=0.5, neighbours=5)
    gram, after = np.zeros((6, 6)), np.zeros((6, 6))
    for sequence in sequences:
        for a, earlier in enumerate(sequence):
            gram[earlier, earlier] += 1
            for b in range(a + 1, min(a + window, len(sequence) - 1) + 1):
                gap, later = b - a, sequence[b]
                gram[earlier, later] += 2 ** (-gap / 2.0)
                gram[later, earlier] += 2 ** (-gap / 2.0)
                after[earlier, later] += 2 ** (-(gap - 1) / 3.0)
    ridge = 0.5 * gram.diagonal().mean()
    expected = np.linalg.solve(gram + ridge * np.eye(6), after)
    found = dense(*(part.numpy() for part in item_item_weights(histories(sequences), 6, config)))
    kept = found != 0  # all but the weakest of six neighbours
    np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-4, atol=1e-6)
    assert np.abs(expected[~kept]).max(initial=0) <= np.abs(found).max(axis=1).max() + 1e-9


@pytest.mark.parametrize("exact_items", [100, 1], ids=["closed form", "scaled counts"])
def test_it_points_forward(exact_items: int) -> None:
    config = ItemItemConfig(neighbours=9, exact_items=exact_items)
    cycle = [[(start + step) % 10 for step in range(5)] for start in range(10)] * 5
    weights = dense(*(part.numpy() for part in item_item_weights(histories(cycle), 10, config)))
    for item in range(10):
        assert weights[item].argmax() == (item + 1) % 10


def test_scaled_counts_keep_the_strongest() -> None:
    config = replace(ItemItemConfig(), neighbours=2, exact_items=1, large_window=4)
    sequences = [[0, 1]] * 5 + [[0, 2]] * 3 + [[0, 3]]
    neighbours, weights = item_item_weights(histories(sequences), 5, config)
    assert sorted(neighbours[0].tolist()) == [1, 2] and (weights[0] > 0).all()
    assert not weights[4].any()  # nobody met item 4
