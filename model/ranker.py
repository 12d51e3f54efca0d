"""The interface of every model and baseline: it ranks the items that a user has not met.

Legend: B users, K the length of the lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from model.batch import Histories

__all__ = ["Hidden", "Ranked", "Ranker"]


@dataclass(frozen=True)
class Ranked:
    """Lists of B users, best item first. A row with fewer than K unseen items ends in column -1 and score -inf."""

    columns: np.ndarray  # int64 [B, K]
    scores: np.ndarray  # float32 [B, K]


class Hidden(NamedTuple):
    """The items that may not be listed, as pairs of a user's row and an item's column."""

    rows: np.ndarray  # int64 [n]
    columns: np.ndarray  # int64 [n]

    @classmethod
    def met(cls, histories: Histories) -> Hidden:
        """Exactly the items that the users have met."""
        return cls(np.repeat(np.arange(len(histories)), histories.lengths), histories.columns)


class Ranker(Protocol):
    """A fitted model or baseline."""

    def rank(self, histories: Histories, k: int) -> Ranked:
        """The best `k` unseen items of B users, columns and scores [B, K]."""
        ...
