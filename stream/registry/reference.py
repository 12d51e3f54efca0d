"""The distribution of items and scores when a model was fitted, and the bins for counting them from then on.

The reference is stored with the model, so that every scorer counts into the same bins. A child keeps its parent's item
bins as long as these contain the items of nearly all interactions: the drift monitor then continues one series instead
of a new one with every model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from ops.monitor.bins import ItemBins, decile_edges
from ops.monitor.signals import ScoreBins
from state.history import History

__all__ = ["Reference"]

_UNNAMED = 0.05  # new bins are made if a larger share of the interactions has items without a bin


class _Stored(msgspec.Struct, array_like=True, frozen=True):
    epoch: str
    bins: bytes  # one per item of the model's catalogue, in its order
    size: int
    counts: list[int]  # likewise
    top1: tuple[float, ...]
    margin: tuple[float, ...]


@dataclass(frozen=True)
class Reference:
    """`epoch` is the version of the model that the item bins were made for."""

    epoch: str
    bins: ItemBins
    counts: Mapping[str, int]  # interactions by item
    scores: ScoreBins

    @staticmethod
    def fit(version: str, histories: Iterable[History], scores: np.ndarray, parent: Reference | None) -> Reference:
        """The reference of a model, from the histories that it was fitted on and the scores [B, K] of its lists, best
        first, -inf where a list is short."""
        counts = Counter(item for history in histories for item in history.items)
        whole = scores[np.isfinite(scores).all(axis=1)]
        found = ScoreBins()
        if len(whole):
            found = ScoreBins(decile_edges(whole[:, 0]), decile_edges(whole[:, 0] - whole[:, -1]))
        if parent is not None:
            unnamed = sum(count for item, count in counts.items() if item not in parent.bins.items)
            if unnamed <= _UNNAMED * counts.total():
                return Reference(parent.epoch, parent.bins, counts, found)
        return Reference(version, ItemBins.fit(counts), counts, found)

    def encode(self, catalogue: Sequence[str]) -> bytes:
        counts = [self.counts.get(item, 0) for item in catalogue]
        packed = self.bins.packed(catalogue)
        return _encoder.encode(
            _Stored(self.epoch, packed, self.bins.size, counts, self.scores.top1, self.scores.margin)
        )

    @staticmethod
    def decode(value: bytes, catalogue: Sequence[str]) -> Reference:
        """The inverse of `encode`. Raises `msgspec.DecodeError`, and ValueError for that of another catalogue."""
        stored = _decoder.decode(value)
        bins = ItemBins.unpack(catalogue, stored.bins, stored.size)
        counts = {item: count for item, count in zip(catalogue, stored.counts, strict=True) if count}
        return Reference(stored.epoch, bins, counts, ScoreBins(stored.top1, stored.margin))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)
