"""Figures of lists that do not depend on hits: coverage, concentration, popularity, novelty, churn, diversity.

Coverage grows and Gini falls with the number of lists that they are computed from, so both are computed from at most a
fixed number of newest lists, one per user.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ItemPopularity", "ListFigures", "ListWindow", "gini", "intra_list_distance", "list_churn", "spread_of"]


def gini(counts: npt.ArrayLike, vocabulary: int) -> float:
    """Gini coefficient of how often items are recommended, over the whole vocabulary: 0 when all items are recommended
    equally often, near 1 when only one is.

    `counts` may leave out items that were never recommended; they count as zeros. Raises ValueError when it has more
    items than the vocabulary.

    >>> gini([5, 5, 5, 5], vocabulary=4), round(gini([20], vocabulary=1000), 3)
    (0.0, 0.999)
    """
    found = np.sort(np.asarray(counts, dtype=np.float64))
    if len(found) > vocabulary:
        raise ValueError(f"{len(found)} items were counted, more than the vocabulary's {vocabulary}")
    if found.sum() == 0:
        return 0.0
    rank = np.arange(vocabulary - len(found) + 1, vocabulary + 1)
    return float((2 * (rank * found).sum() / found.sum() - vocabulary - 1) / vocabulary)


def spread_of(counts: npt.ArrayLike) -> float:
    """Over how many items recommendations are spread: the number of equally frequent items that would be as diverse.

    This is Hill's number of order 2, from the unbiased estimate of Simpson's index (Nature 1949). Unlike coverage it
    does not grow with the number of lists, so samples of any sizes can be compared; counts of several workers are
    added. The result is NaN for fewer than two recommendations, and infinite while no item was recommended twice.

    >>> round(spread_of([50, 50, 50, 50]), 2), round(spread_of([1000, 1, 1, 1]), 2)
    (4.06, 1.01)
    """
    found = np.asarray(counts, dtype=np.float64)
    total = found.sum()
    if total < 2:
        return math.nan
    alike = (found * (found - 1)).sum()
    return float(total * (total - 1) / alike) if alike else math.inf


def list_churn(before: Collection[str], after: Collection[str]) -> float:
    """1 minus the Jaccard similarity of two lists of one user.

    >>> list_churn(["a", "b"], ["b", "c"])
    0.6666666666666667
    """
    old, new = set(before), set(after)
    union = len(old | new)
    return 1 - len(old & new) / union if union else 0.0


def intra_list_distance(vectors: npt.NDArray[np.floating]) -> float:
    """Mean cosine distance of all pairs of a list's items, from their vectors [k, d]; 0 for fewer than two.

    >>> intra_list_distance(np.eye(3)), intra_list_distance(np.ones((3, 2))) < 1e-9
    (1.0, True)
    """
    k = len(vectors)
    if k < 2:
        return 0.0
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    total = float((unit.sum(axis=0) ** 2).sum())  # the sum of all k * k cosines
    return 1 - (total - k) / (k * (k - 1))


@dataclass(frozen=True)
class ItemPopularity:
    """The popularity of items, for figures of lists: each item's share of all interactions in bits, and its rank as a
    percentile.

    >>> popularity = ItemPopularity.of({"a": 2, "b": 1, "c": 1})
    >>> popularity.items["a"], popularity.items["b"], popularity.unknown
    ((1.0, 1.0), (2.0, 0.3333333333333333), (2.0, 0.0))
    """

    items: Mapping[str, tuple[float, float]]  # (bits, percentile)
    unknown: tuple[float, float]  # of an item it does not know

    @staticmethod
    def of(counts: Mapping[str, float]) -> ItemPopularity:
        total = sum(counts.values())
        ranked = sorted(counts, key=lambda item: (counts[item], item))
        rarest = max((-math.log2(count / total) for count in counts.values() if count > 0), default=0.0)
        items = {
            item: (-math.log2(counts[item] / total) if counts[item] > 0 else rarest, place / len(ranked))
            for place, item in enumerate(ranked, 1)
        }
        return ItemPopularity(items, (rarest, 0.0))


@dataclass(frozen=True)
class ListFigures:
    lists: int
    coverage: float  # distinct items over vocabulary
    gini: float
    popularity: float  # mean percentile, 1 the most popular
    novelty: float  # mean -log2 of an item's share of all interactions, bits
    churn: float
    distance: float  # nan when no vectors were given


@dataclass(frozen=True)
class _Shown:
    items: frozenset[str]
    novelty: float
    popularity: float
    churn: float | None  # None: the user's first list


class ListWindow:
    """The newest `lists` lists of one variant, one per user.

    >>> window = ListWindow(lists=100)
    >>> popularity = ItemPopularity.of({"a": 2, "b": 1, "c": 1})
    >>> window.add(b"u1", ["a", "b"], popularity)
    >>> window.add(b"u1", ["b", "c"], popularity)
    >>> figures = window.figures(vocabulary=4)
    >>> figures.lists, figures.coverage, figures.novelty, round(figures.churn, 3)
    (1, 0.5, 2.0, 0.667)
    """

    def __init__(self, lists: int = 10_000) -> None:
        if lists < 1:
            raise ValueError(f"lists must be at least 1, got {lists}")
        self._limit = lists
        self._lists: OrderedDict[bytes, _Shown] = OrderedDict()
        self._counts: dict[str, int] = {}  # in how many of the lists
        self._novelty = self._popularity = self._churn = 0.0
        self._churned = 0
        self._distances: deque[float] = deque(maxlen=1000)

    def add(
        self,
        user: bytes,
        items: Sequence[str],
        popularity: ItemPopularity,
        vectors: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Add a user's new list. `vectors` [k, d] represent its items; they are given when the distance is wanted."""
        names, known, unknown = frozenset(items), popularity.items, popularity.unknown
        bits = percentiles = 0.0
        for item in names:
            own_bits, percentile = known.get(item, unknown)
            bits += own_bits
            percentiles += percentile
        length = max(len(names), 1)
        before = self._lists.pop(user, None)
        churn = None if before is None else list_churn(before.items, names)
        shown = _Shown(names, bits / length, percentiles / length, churn)
        self._lists[user] = shown
        if before is not None:
            self._add_up(before, -1)
        self._add_up(shown, 1)
        gone = frozenset() if before is None else before.items
        self._count(names - gone, 1)
        self._count(gone - names, -1)
        if len(self._lists) > self._limit:
            _, oldest = self._lists.popitem(last=False)
            self._add_up(oldest, -1)
            self._count(oldest.items, -1)
        if vectors is not None:
            self._distances.append(intra_list_distance(vectors))

    def _add_up(self, shown: _Shown, sign: int) -> None:
        self._novelty += sign * shown.novelty
        self._popularity += sign * shown.popularity
        if shown.churn is not None:
            self._churn += sign * shown.churn
            self._churned += sign

    def _count(self, items: frozenset[str], sign: int) -> None:
        counts = self._counts
        for item in items:
            count = counts.get(item, 0) + sign
            if count:
                counts[item] = count
            else:
                del counts[item]

    def figures(self, vocabulary: int) -> ListFigures:
        """`vocabulary`: how many items could have been recommended."""
        lists = len(self._lists)
        vocabulary = max(vocabulary, len(self._counts))
        return ListFigures(
            lists=lists,
            coverage=len(self._counts) / vocabulary if vocabulary else 0.0,
            gini=gini(list(self._counts.values()), vocabulary) if self._counts else 0.0,
            popularity=self._popularity / lists if lists else math.nan,
            novelty=self._novelty / lists if lists else math.nan,
            churn=self._churn / self._churned if self._churned else math.nan,
            distance=float(np.mean(self._distances)) if self._distances else math.nan,
        )
