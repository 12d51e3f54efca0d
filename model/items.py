"""Item ids, and their columns in a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["ItemIndex"]


class _Columns(dict[str, int]):
    """Columns by id; -1 for an unknown id. Looking up a known id makes no call in Python."""

    def __missing__(self, item: str) -> int:
        return -1


class ItemIndex:
    """A growing catalogue: ids in order of arrival, column j is `ids[j]`. Instances never change; `grown` makes more.

    >>> index = ItemIndex(["a", "b"]).grown(["b", "c"])
    >>> index.ids, index.columns(["c", "x", "a"]).tolist()
    (('a', 'b', 'c'), [2, -1, 0])
    """

    def __init__(self, ids: Sequence[str] = ()) -> None:
        self.ids = tuple(ids)
        self._columns = _Columns(zip(self.ids, range(len(self.ids)), strict=True))
        if len(self._columns) != len(self.ids):
            raise ValueError(f"{len(self.ids) - len(self._columns)} item ids occur more than once")

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, item: object) -> bool:
        return item in self._columns

    def columns(self, items: Iterable[str]) -> np.ndarray:
        """int64 columns of `items`, -1 where the catalogue does not know one."""
        return np.fromiter(map(self._columns.__getitem__, items), dtype=np.int64)

    def grown(self, items: Iterable[str]) -> ItemIndex:
        """An index with the unknown ones of `items` appended; the columns of old items stay the same."""
        new = [item for item in dict.fromkeys(items) if item not in self._columns]
        return ItemIndex((*self.ids, *new)) if new else self
