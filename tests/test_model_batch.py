import struct

import numpy as np

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
        assert (packed.times_ms.dtype, packed.strengths.dtype) == (np.int64, np.float32)
