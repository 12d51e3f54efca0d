"""The bin that an observation falls into: on fixed grids, or on grids that were fitted to a reference.

A drift statistic over raw item ids shows severe drift even between two samples of the same long-tailed distribution.
Therefore each of the most popular items of the reference has a bin of its own, its other items share bins of about
equal mass, and one bin is for items that the reference does not know. Numbers are counted on logarithmic grids that
never change, or on deciles of the reference.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "EVENT_TYPES",
    "HISTORY_LENGTHS",
    "INTER_ARRIVALS",
    "ItemBins",
    "decile_edges",
    "event_type_bin",
    "history_length_bin",
    "history_length_bins",
    "inter_arrival_bin",
    "inter_arrival_bins",
]

HISTORY_LENGTHS = 10
INTER_ARRIVALS = 14
EVENT_TYPES = 8


def history_length_bin(items: int) -> int:
    """The bin of a history with this many items: 1, 2, 3-4, 5-8, ..., 129-256, more.

    >>> [history_length_bin(items) for items in (1, 2, 3, 4, 5, 256, 257, 10_000)]
    [0, 1, 2, 2, 3, 8, 9, 9]
    """
    return min(max(items - 1, 0).bit_length(), HISTORY_LENGTHS - 1)


def inter_arrival_bin(gap_ms: int) -> int:
    """The bin of a gap, by powers of four seconds: below 1 s, 1-3 s, 4-15 s, ...; for a negative gap (events out of
    order) the absolute value counts.

    >>> [inter_arrival_bin(seconds * 1000) for seconds in (0, 1, 3, 4, 16, 86_400, 10**9)]
    [0, 1, 1, 2, 3, 9, 13]
    """
    return min(((abs(gap_ms) // 1000).bit_length() + 1) // 2, INTER_ARRIVALS - 1)


def history_length_bins(items: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """`history_length_bin` of each.

    >>> lengths = [*range(1, 1000), 10**6]
    >>> history_length_bins(lengths).tolist() == [history_length_bin(length) for length in lengths]
    True
    """
    return np.minimum(_bit_lengths(np.maximum(np.asarray(items, dtype=np.int64) - 1, 0)), HISTORY_LENGTHS - 1)


def inter_arrival_bins(gaps_ms: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """`inter_arrival_bin` of each.

    >>> gaps = [sign * seconds * 1000 for seconds in (*range(300), 4**12 - 1, 4**12, 10**9) for sign in (1, -1)]
    >>> inter_arrival_bins(gaps).tolist() == [inter_arrival_bin(gap) for gap in gaps]
    True
    """
    seconds = np.abs(np.asarray(gaps_ms, dtype=np.int64)) // 1000
    return np.minimum((_bit_lengths(seconds) + 1) // 2, INTER_ARRIVALS - 1)


def _bit_lengths(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int.bit_length of each; exact below 2^53."""
    return np.frexp(numbers.astype(np.float64))[1].astype(np.int64)


def event_type_bin(event: str) -> int:
    """The bin of a kind of events, by a stable hash, so that no worker has to know the names of kinds.

    >>> event_type_bin("purchase") == event_type_bin("purchase"), 0 <= event_type_bin("") < EVENT_TYPES
    (True, True)
    """
    return zlib.crc32(event.encode()) % EVENT_TYPES


def decile_edges(values: npt.ArrayLike, bins: int = 10) -> tuple[float, ...]:
    """The inner edges that split a reference sample into equal shares: bins - 1 ascending numbers, ties removed.

    A value falls into bin `numpy.searchsorted(edges, value, side="right")`.

    >>> decile_edges(range(100), bins=4)
    (24.75, 49.5, 74.25)
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError(f"deciles need at least one value and only finite ones, got {sample.size} values")
    return tuple(float(edge) for edge in np.unique(np.quantile(sample, np.arange(1, bins) / bins)))


@dataclass(frozen=True)
class ItemBins:
    """The bin of each item of a reference vocabulary: `top` bins of one item each, then `tail` bins of several items,
    then the last bin for unknown items.

    >>> bins = ItemBins.fit({"a": 6, "b": 4, "c": 2, "d": 1, "e": 1}, top=2, tail=2)
    >>> bins.size, [bins.of(item) for item in ("a", "b", "c", "d", "e", "never seen")]
    (5, [0, 1, 2, 3, 3, 4])
    >>> bins.count({"b": 10, "z": 1}).tolist()
    [0, 10, 0, 0, 1]
    """

    items: Mapping[str, int]
    size: int

    @staticmethod
    def fit(counts: Mapping[str, int], top: int = 50, tail: int = 14) -> ItemBins:
        """Bins from how often each item was met. Ties are broken by name, so that every process finds the same bins."""
        ranked = sorted(counts, key=lambda item: (-counts[item], item))
        bins = {item: rank for rank, item in enumerate(ranked[:top])}
        rest = ranked[top:]
        mass = np.cumsum([counts[item] for item in rest], dtype=np.float64)
        if rest:
            share = (mass - np.array([counts[item] for item in rest]) / 2) / max(mass[-1], 1)
            buckets = np.minimum((share * tail).astype(np.int64), tail - 1)
            bins.update(zip(rest, (top + buckets).tolist(), strict=True))
        return ItemBins(bins, top + tail + 1)

    @property
    def unknown(self) -> int:
        return self.size - 1

    def of(self, item: str) -> int:
        return self.items.get(item, self.unknown)

    def count(self, counts: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """int64 [size]: how many observations fall into each bin."""
        result = np.zeros(self.size, dtype=np.int64)
        for item, number in counts.items():
            result[self.of(item)] += number
        return result

    def packed(self, vocabulary: Iterable[str]) -> bytes:
        """One byte per item of `vocabulary`, in its order: what an artifact stores beside its items."""
        return bytes(self.of(item) for item in vocabulary)

    @staticmethod
    def unpack(vocabulary: Sequence[str], packed: bytes, size: int) -> ItemBins:
        """The inverse of `packed` for items of `vocabulary`.

        >>> bins = ItemBins.fit({"a": 3, "b": 1}, top=1, tail=1)
        >>> ItemBins.unpack(["a", "b"], bins.packed(["a", "b"]), bins.size) == bins
        True
        """
        if len(packed) != len(vocabulary):
            raise ValueError(f"{len(packed)} bins for {len(vocabulary)} items: they belong to different artifacts")
        unknown = size - 1
        return ItemBins({i: b for i, b in zip(vocabulary, packed, strict=True) if b != unknown}, size)
