"""Histories are packed, selected and split, with the newest interaction first."""

import struct

import numpy as np
import torch

from model.batch import Histories
from model.items import ItemIndex

INDEX = ItemIndex(["a", "b", "c"])


def test_packed_bytes_are_packed_numbers_and_unknown_items_are_left_out() -> None:
    users = [(("c", "x", "a"), (9, 8, 7), (1.0, 2.0, 0.5)), ((), (), ()), (("b",), (2**40,), (3.0,))]
    as_bytes = [
        (items, struct.pack(f"<{len(items)}q", *times), struct.pack(f"<{len(items)}f", *strengths))
        for items, times, strengths in users
    ]
    for packed in (Histories.pack(INDEX, users), Histories.pack_bytes(INDEX, as_bytes)):
        assert packed.offsets.tolist() == [0, 2, 2, 3]
        assert packed.columns.tolist() == [2, 0, 1]
        assert packed.times_ms.tolist() == [9, 7, 2**40]
        assert packed.strengths.tolist() == [1.0, 0.5, 3.0]
        assert (packed.times_ms.dtype, packed.strengths.dtype) == (np.dtype(np.int64), np.dtype(np.float32))


def test_padded_rows_hold_the_newest_interactions_and_zeros() -> None:
    histories = Histories(
        np.array([0, 3, 3, 4]), np.array([2, 0, 1, 1]), np.array([9, 8, 7, 5]), np.array([1, 2, 3, 4], np.float32)
    )
    whole, newest = histories.padded(torch.device("cpu")), histories.padded(torch.device("cpu"), limit=2)
    assert whole.columns.tolist() == [[2, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert (whole.lengths.tolist(), newest.lengths.tolist()) == ([3, 0, 1], [2, 0, 1])
    assert newest.columns.tolist() == [[2, 0], [0, 0], [1, 0]]
    assert newest.times_ms.tolist() == [[9, 8], [0, 0], [5, 0]]
    assert newest.strengths.tolist() == [[1, 2], [0, 0], [4, 0]]
    assert (newest.columns.dtype, newest.strengths.dtype) == (torch.int64, torch.float32)
    assert newest.valid.tolist() == [[True, True], [False, False], [True, False]]
    nobody = Histories.from_rows(np.empty((0, 2), np.int64), 2).padded(torch.device("cpu"), limit=2)
    assert nobody.columns.shape == (2, 0)
