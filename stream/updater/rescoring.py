"""A new model reaches everybody: stored histories are sent to the scorer again, slowly, beside the live traffic."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from state import codec
from state.store import Store
from stream.registry.slots import Slots
from stream.updater.partition import PartitionTask

__all__ = ["Rescoring", "RescoringConfig", "RescoringWalk"]

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_PAGE = 256
_SLOTS_SECONDS = 0.5  # how often `models` is looked at


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


class Rescoring:
    """Follows `models`. When another model goes live, a walk begins."""

    def __init__(self, config: RescoringConfig, slots: Slots) -> None:
        self._config, self._slots = config, slots
        self._live = "" if slots.live is None else slots.live.version
        self._slots_due = 0.0
        self._walk: RescoringWalk | None = None

    @property
    def walking(self) -> bool:
        return self._walk is not None

    def due(
        self, tasks: Mapping[int, PartitionTask], restoring: bool, newest_ms: int
    ) -> Iterator[tuple[int, bytes, bytes]]:
        """(partition, user, history) of the users whose turn has come. `tasks` are running."""
        now = time.monotonic()
        # A model that goes live while partitions are on their way waits for them, or their users would be left out.
        if now >= self._slots_due and tasks and not restoring:
            self._slots_due = now + _SLOTS_SECONDS
            self._slots.poll()
            live = self._slots.live
            if live is not None and live.version != self._live:
                self._live = live.version
                stores = {number: task.store for number, task in tasks.items()}
                self._walk = RescoringWalk(live.version, stores, newest_ms, self._config)
        if self._walk is None:
            return
        for number, user, stored in self._walk.due({n: task.store for n, task in tasks.items()}):
            history = tasks[number].unsaved_history(user) or stored
            if history is not stored and not codec.decode(history).items:
                continue  # forgotten since the last checkpoint: no list may follow the tombstone
            yield number, user, history
        if self._walk.finished:
            log.info("model %s: %d active users are scored again", self._walk.version, self._walk.users)
            self._walk = None

    def close(self) -> None:
        self._slots.close()
