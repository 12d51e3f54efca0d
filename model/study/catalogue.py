"""What is known of the items before any training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model.items import ItemIndex

__all__ = ["Catalogue"]


@dataclass(frozen=True)
class Catalogue:
    """Items by column, I of them."""

    items: ItemIndex
    embedding: Tensor | None = None  # float32 [I, E], where the data brings one
    timed: bool = True  # times of interactions are moments, not mere ranks
