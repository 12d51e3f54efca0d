"""Which items follow which: decayed counts of pairs, kept for each earlier item as a row of its strongest followers.

A pair is *close* when both interactions belong to one visit, else *distant*: the items that follow after minutes differ
from those that follow after days. Counts of each class decay with several half-lives.

Memory is bounded: a row keeps `width` followers, and when `most_rows` rows are taken the lightest half of them goes.
Up to these bounds the counts are exact, whatever the order of the pairs.

Legend: p pairs, R rows, W followers of a row, S sums of a pair (classes times half-lives), C columns (items).
"""

from __future__ import annotations

import numpy as np

__all__ = ["CLASSES", "Follows"]

CLASSES = 2  # close, distant


class Follows:
    """Counts in the scale of a `DecayClock`: contributions are stored as its `powers`."""

    def __init__(self, sums: int, width: int, most_rows: int) -> None:
        if width < 1 or most_rows < 2:
            raise ValueError(f"need a width of 1 and 2 rows at least, got {width} and {most_rows}")
        self._width, self._most_rows = width, most_rows
        self.row_of = np.empty(0, dtype=np.int32)  # [C], -1 for an item that nothing has followed
        self.followers = np.full((0, width), -1, dtype=np.int32)  # [R, W], -1 in an empty place
        self.counts = np.zeros((0, width, sums), dtype=np.float32)  # [R, W, S]
        self.totals = np.zeros((0, sums), dtype=np.float32)  # [R, S], of all pairs, kept or not
        self._rows = 0  # taken

    def add(self, earlier: np.ndarray, later: np.ndarray, contributions: np.ndarray, columns: int) -> None:
        """Count p pairs of columns `earlier` and `later` int64 [p] with `contributions` float32 [p, S].

        Negative contributions take pairs back. `columns` is how many items there are.
        """
        if not len(earlier):
            return
        if len(self.row_of) < columns:
            grown = np.full(max(columns, 2 * len(self.row_of)), -1, dtype=np.int32)
            grown[: len(self.row_of)] = self.row_of
            self.row_of = grown
        cells, place = np.unique(earlier * columns + later, return_inverse=True)
        sums = _sum_by(place, contributions, len(cells))
        earlier, later = np.divmod(cells, columns)
        rows = self._rows_for(earlier)
        np.add.at(self.totals, rows, sums)
        hits = self.followers[rows] == later[:, None]
        slots, found = hits.argmax(1), hits.any(1)
        self.counts[rows[found], slots[found]] += sums[found]
        self._insert(rows[~found], later[~found], sums[~found])

    def _rows_for(self, earlier: np.ndarray) -> np.ndarray:
        """int64 [p] rows of items; an item without a row gets one."""
        missing = np.unique(earlier[self.row_of[earlier] < 0])
        if self._rows + len(missing) > self._most_rows:
            self._drop_rows(keep=earlier)
            missing = np.unique(earlier[self.row_of[earlier] < 0])
        end = self._rows + len(missing)
        if end > len(self.followers):
            size = max(end, min(2 * len(self.followers), self._most_rows), 64)
            self.followers = _grown(self.followers, size, -1)
            self.counts, self.totals = _grown(self.counts, size, 0), _grown(self.totals, size, 0)
        self.row_of[missing] = np.arange(self._rows, end)
        self._rows = end
        return self.row_of[earlier].astype(np.int64)

    def _drop_rows(self, keep: np.ndarray) -> None:
        """Forget the lighter half of the rows, but none of the items `keep`."""
        weight = self.totals[: self._rows].sum(1)
        kept_rows = self.row_of[keep]
        weight[kept_rows[kept_rows >= 0]] = np.inf
        kept = np.sort(np.argsort(-weight, kind="stable")[: max(self._rows // 2, int(np.isinf(weight).sum()))])
        place = np.full(self._rows, -1, dtype=np.int32)
        place[kept] = np.arange(len(kept))
        taken = self.row_of >= 0
        self.row_of[taken] = place[self.row_of[taken]]
        for name, empty in (("followers", -1), ("counts", 0), ("totals", 0)):
            values = getattr(self, name)
            values[: len(kept)] = values[kept]
            values[len(kept) :] = empty
        self._rows = len(kept)

    def _insert(self, rows: np.ndarray, later: np.ndarray, sums: np.ndarray) -> None:
        """Put new followers into the empty places of their rows, then into the places of the lightest followers."""
        positive = sums.sum(1) > 0  # a pair that is taken back but has no place was dropped before
        rows, later, sums = rows[positive], later[positive], sums[positive]
        if not len(rows):
            return
        order = np.lexsort((-sums.sum(1), rows))
        rows, later, sums = rows[order], later[order], sums[order]
        first = np.r_[True, rows[1:] != rows[:-1]]
        starts = np.flatnonzero(first)
        nth = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
        fits = nth < self._width
        rows, later, sums, nth = rows[fits], later[fits], sums[fits], nth[fits]
        distinct, place = np.unique(rows, return_inverse=True)
        weights = np.where(self.followers[distinct] < 0, -np.inf, self.counts[distinct].sum(2))
        slots = np.argsort(weights, axis=1, kind="stable")[place, nth]
        self.followers[rows, slots] = later
        self.counts[rows, slots] = sums

    def scale(self, factors: np.ndarray) -> None:
        """Multiply all sums by `factors` float32 [S]: the clock's origin has moved."""
        self.counts *= factors
        self.totals *= factors

    def count(self, earlier: int, later: int) -> np.ndarray:
        """float32 [S] stored sums of one pair of columns."""
        row = self.row_of[earlier] if earlier < len(self.row_of) else -1
        if row < 0:
            return np.zeros(self.totals.shape[1], dtype=np.float32)
        return self.counts[row][self.followers[row] == later].sum(0)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restore` needs."""
        return {
            "row_of": self.row_of,
            "followers": self.followers[: self._rows],
            "counts": self.counts[: self._rows],
            "totals": self.totals[: self._rows],
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Restore a saved state. Raises ValueError for arrays of other shapes."""
        rows = len(state["followers"])
        expected = {"followers": (rows, self._width), "counts": (rows, *self.counts.shape[1:])}
        expected["totals"] = (rows, self.totals.shape[1])
        for name, shape in expected.items():
            if state[name].shape != shape:
                raise ValueError(f"{name} have shape {state[name].shape}, expected {shape}")
        self.row_of = state["row_of"].astype(np.int32)
        self.followers = state["followers"].astype(np.int32)
        self.counts, self.totals = state["counts"].astype(np.float32), state["totals"].astype(np.float32)
        self._rows = rows


def _sum_by(place: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """float32 [count, S]: sums of `values` [p, S] by `place` [p]."""
    if count == len(place):
        summed = np.empty_like(values)
        summed[place] = values
        return summed
    return np.stack([np.bincount(place, values[:, s], count) for s in range(values.shape[1])], 1).astype(np.float32)


def _grown(values: np.ndarray, rows: int, fill: float) -> np.ndarray:
    grown = np.full((rows, *values.shape[1:]), fill, dtype=values.dtype)
    grown[: len(values)] = values
    return grown
