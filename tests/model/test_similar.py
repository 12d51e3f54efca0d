"""Which items are similar is known where they are met in pairs, or in two halves."""

import numpy as np
import pytest

from model.similar import SimilarItems
from tests.support.pairs import ITEMS, halved_model, paired_model


@pytest.mark.parametrize("share", [0.7, 1.0])
def test_companions_are_the_most_similar(share: float) -> None:
    similar = SimilarItems(paired_model(share))
    asked = np.arange(0, ITEMS, 2)  # the item-item term knows what follows: of the second of a pair, nothing does
    assert similar.rank(asked, 1).columns[:, 0].tolist() == (asked + 1).tolist()


def test_rows_of_the_output_layer_tell_the_halves_apart() -> None:
    columns = SimilarItems(halved_model()).rank(np.arange(ITEMS), 10).columns
    assert (columns % 2 == np.arange(ITEMS)[:, None] % 2).all()


def test_an_item_is_not_similar_to_itself_and_what_is_not_allowed_is_left_out() -> None:
    similar, allowed = SimilarItems(paired_model()), np.ones(ITEMS, dtype=bool)
    allowed[[1, 7]] = False
    ranked = similar.rank(np.array([0, 5]), ITEMS, allowed)
    assert [sorted(row[row >= 0].tolist()) for row in ranked.columns] == [
        [n for n in range(ITEMS) if n not in (own, 1, 7)] for own in (0, 5)
    ]
    assert (np.diff(ranked.scores[:, : ITEMS - 3]) <= 0).all()


def test_items_asked_together_and_alone_get_the_same() -> None:
    similar = SimilarItems(paired_model())
    together = similar.rank(np.arange(ITEMS), 5)
    for column in range(0, ITEMS, 7):
        alone = similar.rank(np.array([column]), 5)
        assert alone.columns[0].tolist() == together.columns[column].tolist()
        np.testing.assert_allclose(alone.scores[0], together.scores[column], atol=1e-5)
