"""A new model reaches everybody: stored histories are sent to the scorer again, slowly, beside the live traffic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from state import codec
from state.store import Store

__all__ = ["RescoringConfig", "RescoringWalk"]

_DAY_MS = 86_400_000
_PAGE = 256


@dataclass(frozen=True)
class RescoringConfig:
    users_per_second: float = 200.0  # of one updater; fresh events always go first
    active_days: float = 30.0  # only users whose newest event is at most this older than the newest of all

    def __post_init__(self) -> None:
        for name in ("users_per_second", "active_days"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class RescoringWalk:
    """One walk over the stores of owned partitions. A partition that moves away is left out; its new owner has seen the
    announcement too."""

    def __init__(
        self,
        version: str,
        partitions: Mapping[int, Store],
        newest_ms: int,
        config: RescoringConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.version = version
        self._waiting = list(partitions)
        self._after: bytes | None = None
        self._oldest_ms = newest_ms - int(config.active_days * _DAY_MS)
        self._rate, self._clock = config.users_per_second, clock
        self._allowed, self._asked = 0.0, clock()
        self.users = 0

    @property
    def finished(self) -> bool:
        return not self._waiting

    def due(self, partitions: Mapping[int, Store]) -> Iterator[tuple[int, bytes, bytes]]:
        """(partition, user, history) of the users whose turn has come, at most one page."""
        now = self._clock()
        self._allowed = min(self._allowed + (now - self._asked) * self._rate, _PAGE)
        self._asked = now
        count = int(self._allowed)
        if not count or self.finished:
            return
        number = self._waiting[0]
        store = partitions.get(number)
        page = [] if store is None else store.page(self._after, count)
        self._allowed -= len(page)
        if len(page) < count:
            self._waiting.pop(0)
            self._after = None
        else:
            self._after = page[-1][0]
        for user, value in page:
            history = codec.decode(value)
            if history.items and history.newest_ms >= self._oldest_ms:
                self.users += 1
                yield number, user, value
