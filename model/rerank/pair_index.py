"""An index from numbers to their places in a list, to look up pairs of user and item, each pair as one number.

Sorting the pairs of a batch would take several times as long as all other work with them. So a table with a place for
every possible number is used where it fits into memory. The table is not cleared: a place that it gives is right only
if the list has the number at that place, which is checked.

Legend: n keys, m wanted.
"""

from __future__ import annotations

import numpy as np

__all__ = ["PairIndex"]

_TABLE = 1 << 23  # most numbers of a table: 32 MiB


class PairIndex:
    """`first` int64 [n] is the first place of the same key, for each of `keys` int64 [n] from 0 to below `size`."""

    def __init__(self, keys: np.ndarray, size: int) -> None:
        self._keys = keys
        self._table: np.ndarray | None = None
        if size <= _TABLE:
            table = self._table = np.empty(size, dtype=np.uint32)
            table[keys[::-1]] = np.arange(len(keys) - 1, -1, -1)  # written in reverse, so that the first place is kept
            self.first = table[keys].astype(np.int64)
        else:
            self._distinct, self._first, inverse = np.unique(keys, return_index=True, return_inverse=True)
            self.first = self._first[inverse]

    @property
    def new(self) -> np.ndarray:
        """bool [n]: whether this is the first place of its key."""
        return self.first == np.arange(len(self._keys))

    def places(self, wanted: np.ndarray) -> np.ndarray:
        """int64 [m]: the first place of each of `wanted` int64 [m] from 0 to below `size`; -1 where it is no key."""
        if not len(self._keys):
            return np.full(len(wanted), -1, dtype=np.int64)
        if self._table is not None:
            places = np.minimum(self._table[wanted], len(self._keys) - 1).astype(np.int64)
        else:
            found = np.minimum(np.searchsorted(self._distinct, wanted), len(self._distinct) - 1)
            places = self._first[found]
        return np.where(self._keys[places] == wanted, places, -1)
