"""Sums that halve with time, stored so that they need no update while time passes.

A contribution at time t is stored as 2^((t - origin) / half_life), for several half-lives at once. All sums of one
half-life decay at the same rate, so their values at any time are the stored sums times one factor. The origin moves
forward before the powers overflow.

Addition is commutative: the order in which events arrive changes a sum by no more than rounding.

Legend: n times, S half-lives.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["DAY_MS", "DecayClock"]

DAY_MS = 86_400_000.0
_LARGEST_EXPONENT = 60.0  # sums are float32, which end at 2^127


class DecayClock:
    """The origin that sums of several half-lives share."""

    def __init__(self, half_lives_ms: Sequence[float]) -> None:
        if not half_lives_ms or min(half_lives_ms) <= 0:
            raise ValueError(f"half-lives must be positive, got {list(half_lives_ms)}")
        self._rates = 1.0 / np.asarray(half_lives_ms, dtype=np.float64)  # 0 for an infinite half-life
        self.origin_ms = 0

    def __len__(self) -> int:
        return len(self._rates)

    def powers(self, times_ms: np.ndarray) -> np.ndarray:
        """float32 [n, S]: the stored form of a contribution of 1 at each of `times_ms` int64 [n]."""
        # Times long before the origin underflow to 0, as they should.
        exponents = np.clip((times_ms - self.origin_ms)[:, None] * self._rates, -1000, 2 * _LARGEST_EXPONENT)
        return np.exp2(exponents).astype(np.float32)

    def factors(self, now_ms: np.ndarray) -> np.ndarray:
        """float32 [n, S]: the factors from stored sums to their values at `now_ms` int64 [n]."""
        return np.exp2(np.clip((self.origin_ms - now_ms)[:, None] * self._rates, -140, 60)).astype(np.float32)

    def advance(self, newest_ms: int) -> np.ndarray | None:
        """Move the origin if `newest_ms` needs it: float32 [S] that every stored sum must be multiplied by, else
        None."""
        span = newest_ms - self.origin_ms
        if span * self._rates.max() <= _LARGEST_EXPONENT:
            return None
        self.origin_ms = newest_ms
        return np.exp2(np.clip(-span * self._rates, -1000, 0)).astype(np.float32)
