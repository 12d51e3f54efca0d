"""From the order and times of a history to the weights of its items: one definition for training and scoring.

Legend: B users, L places of a padded history, place 0 the newest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Weighting"]

_DAY_MS = 86_400_000.0


@dataclass(frozen=True)
class Weighting:
    """How an interaction's weight falls with its age.

    - `uniform`: 1 (DiffRec)
    - `linear_rank`: from `least` (oldest) to `most` (newest), linear in rank (T-DiffRec, section 3.3). A history of one
      item gets `most`: it is the newest.
    - `exponential_rank`: least + (most - least) * 2^(-rank / half_life), rank 0 the newest
    - `exponential_time`: the same formula, with the age in days before the user's newest interaction for the rank
    """

    kind: Literal["uniform", "linear_rank", "exponential_rank", "exponential_time"] = "uniform"
    """How a weight falls with age: not at all, linearly or exponentially in rank, or exponentially in time."""
    half_life: float = 5.0
    """Half-life in items (by rank) or days (by time)."""
    least: float = 0.0
    """Weight of the oldest interaction."""
    most: float = 1.0
    """Weight of the newest interaction."""

    def __post_init__(self) -> None:
        if self.kind not in ("uniform", "linear_rank", "exponential_rank", "exponential_time"):
            raise ValueError(f"unknown weighting {self.kind!r}")
        if self.half_life <= 0:
            raise ValueError(f"half_life must be positive, got {self.half_life}")

    def horizon(self, tolerance: float = 1e-7) -> int | None:
        """Places beyond which every weight is below `tolerance` of the newest one; None when there is no such place."""
        if self.kind != "exponential_rank" or self.least > 0:
            return None
        return math.ceil(-math.log2(tolerance) * self.half_life)

    def __call__(self, rank: Tensor, lengths: Tensor, times_ms: Tensor | None = None) -> Tensor:
        """float32 [B, L] weights for integer ranks [B, L] or [L] (negative: hidden, weight 0) and `lengths` [B].

        `times_ms` [B, L] is needed for `exponential_time`; its column 0 must be the newest visible interaction.
        """
        if self.kind == "uniform":
            weight = torch.ones_like(rank, dtype=torch.float32)
        elif self.kind == "linear_rank":
            span = (lengths[:, None] - 1).clamp(min=1)
            weight = self.most - (self.most - self.least) * rank.float() / span
        elif self.kind == "exponential_rank":
            # Hidden places have negative ranks; unclamped, 2^(-rank / half_life) could overflow and inf * 0 is NaN.
            weight = self.least + (self.most - self.least) * torch.exp2(-rank.clamp(min=0).float() / self.half_life)
        else:
            if times_ms is None:
                raise ValueError("exponential_time needs times_ms")
            hidden = (rank < 0) | (rank >= lengths[:, None])
            newest = torch.where(hidden, 0, times_ms).amax(1, keepdim=True) if times_ms.numel() else times_ms
            age = (newest - times_ms).clamp(min=0).double() / _DAY_MS
            weight = self.least + (self.most - self.least) * torch.exp2(-age / self.half_life).float()
        return weight * ((rank >= 0) & (rank < lengths[:, None]))
