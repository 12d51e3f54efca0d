"""The items of a study, as known before any training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.items import ItemIndex

__all__ = ["Catalogue"]


@dataclass(frozen=True)
class Catalogue:
    """The I items, by column."""

    items: ItemIndex
    embedding: Tensor | None = None  # float32 [I, E], if the data has one
    timed: bool = True  # times of interactions are timestamps, not only ranks
