"""A limit per second for work whose value does not grow with the traffic."""

from __future__ import annotations

import math

__all__ = ["Allowance"]


class Allowance:
    """Allows `per_second` units of work on average; the units of one second may be taken at once.

    >>> allowance = Allowance(per_second=10)
    >>> allowance.take(8, now=0.0), allowance.take(8, now=0.0), allowance.take(8, now=0.5)
    (8, 2, 5)
    """

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self.most = max(int(per_second), 1) if per_second else 0  # units that can be taken at once
        self._left, self._at = float(self.most), -math.inf

    def left(self, now: float) -> int:
        """How many may be taken at `now` seconds."""
        if self.most and now > self._at:
            self._left = min(self._left + (now - self._at) * self._per_second, self.most)
            self._at = now
        return int(self._left)

    def take(self, wanted: int, now: float) -> int:
        """Take `wanted` units, or as many as are left; returns how many were taken."""
        taken = min(wanted, self.left(now))
        self._left -= taken
        return taken
