"""What the lists look like apart from their hits: coverage, concentration, popularity, novelty, churn, diversity.

Coverage and Gini grow and fall with the number of lists they are taken from, so they are always taken from the same
number of newest lists, one per user.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ItemPopularity", "ListFigures", "ListWindow", "gini", "intra_list_distance", "list_churn", "spread_of"]


def gini(counts: npt.ArrayLike, vocabulary: int) -> float:
    """Gini coefficient of how often items are recommended, over the whole vocabulary: 0 all alike, near 1 one item.

    `counts` may leave out the items never recommended; they count as zeros.

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
    """Over how many items recommendations are spread: the number of equally frequent ones that would be as diverse.

    Hill's number of order 2 from the unbiased estimate of Simpson's index (Nature 1949). Unlike coverage it does not
    grow with the number of lists, so any two samples compare; counts of several workers are simply added. NaN below
    two recommendations, infinite while none repeats.

    >>> round(spread_of([50, 50, 50, 50]), 2), round(spread_of([1000, 1, 1, 1]), 2)
    (4.06, 1.01)
    """
    found = np.asarray(counts, dtype=np.float64)
    total = found.sum()
    if total < 2:
        return math.nan
    alike = (found * (found - 1)).sum()
    return float(total * (total - 1) / alike) if alike else math.inf


def list_churn(before: Sequence[str], after: Sequence[str]) -> float:
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
    """What lists are measured against: each item's share of all interactions in bits, and its rank as a percentile.

    >>> popularity = ItemPopularity.of({"a": 2, "b": 1, "c": 1})
    >>> popularity.bits["a"], popularity.bits["b"], popularity.percentiles["a"]
    (1.0, 2.0, 1.0)
    """

    bits: Mapping[str, float]
    percentiles: Mapping[str, float]
    rarest: float  # bits of an item it does not know

    @staticmethod
    def of(counts: Mapping[str, float]) -> ItemPopularity:
        total = sum(counts.values())
        ranked = sorted(counts, key=lambda item: (counts[item], item))
        bits = {item: -math.log2(counts[item] / total) for item in ranked if counts[item] > 0}
        percentiles = {item: (place + 1) / len(ranked) for place, item in enumerate(ranked)}
        return ItemPopularity(bits, percentiles, max(bits.values(), default=0.0))


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
    items: tuple[str, ...]
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
        self._counts: Counter[str] = Counter()
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
        """A user's new list; `vectors` [k, d] represent its items when their distance is wanted."""
        bits, rarest, percentiles = popularity.bits, popularity.rarest, popularity.percentiles
        length = max(len(items), 1)
        before = self._lists.pop(user, None)
        if before is not None:
            self._count(before, -1)
        shown = _Shown(
            tuple(items),
            sum([bits.get(item, rarest) for item in items]) / length,
            sum([percentiles.get(item, 0.0) for item in items]) / length,
            None if before is None else list_churn(before.items, items),
        )
        self._lists[user] = shown
        self._count(shown, 1)
        if len(self._lists) > self._limit:
            self._count(self._lists.popitem(last=False)[1], -1)
        if vectors is not None:
            self._distances.append(intra_list_distance(vectors))

    def _count(self, shown: _Shown, sign: int) -> None:
        self._novelty += sign * shown.novelty
        self._popularity += sign * shown.popularity
        if shown.churn is not None:
            self._churn += sign * shown.churn
            self._churned += sign
        counts = self._counts
        for item in shown.items:
            counts[item] += sign
            if not counts[item]:
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
