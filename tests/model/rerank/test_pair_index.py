"""Lookups of pairs: what a dictionary says, with a table and without."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.rerank import pair_index
from model.rerank.pair_index import PairIndex

SIZE = 12
numbers = st.lists(st.integers(0, SIZE - 1), max_size=20)


@pytest.mark.parametrize("table", [SIZE, 0])
@given(keys=numbers, wanted=numbers)
def test_places_are_those_of_a_dictionary(table: int, keys: list[int], wanted: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_index, "_TABLE", table)
        index = PairIndex(np.array(keys, dtype=np.int64), SIZE)
    first: dict[int, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    assert index.first.tolist() == [first[key] for key in keys]
    assert index.new.tolist() == [first[key] == place for place, key in enumerate(keys)]
    assert index.places(np.array(wanted, dtype=np.int64)).tolist() == [first.get(key, -1) for key in wanted]
