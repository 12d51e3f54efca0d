"""The copies of partitions that this instance holds, and which of them may be shown.

An instance answers for a partition when, at some moment in the last `stale_seconds`, its copy held everything that the
topic held at that moment. Nothing else counts, neither the assignment of the group nor the directory. So two instances
may answer for one partition while it moves, and both answers are right. An instance that was paused or cut off from
Kafka answers nothing until it has caught up.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kafka import TopicPartition

from state.store import Store

__all__ = ["Copies", "NotHere", "NotLevel", "suspended_too"]


class NotHere(LookupError):
    """This instance does not hold the partition."""


class NotLevel(RuntimeError):
    """The copy may be behind its topic, so that its values could be out of date."""


def suspended_too() -> float:
    """Seconds on a clock that also runs while the machine sleeps (Linux; elsewhere the monotonic one)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass
class _Copy:
    store: Store
    level_at: float = -math.inf  # seconds on the clock: the store has everything that the topic held then


class Copies:
    """Stores by partition. One thread, the follower, adds, writes and drops; any thread reads."""

    def __init__(self, stale_seconds: float, clock: Callable[[], float] = suspended_too) -> None:
        self._stale_seconds, self._clock = stale_seconds, clock
        self._copies: dict[TopicPartition, _Copy] = {}
        self._lock = threading.Lock()  # a store must not be closed under a reader

    def add(self, tp: TopicPartition, store: Store) -> None:
        """Hold a store, which is not shown before it is confirmed."""
        with self._lock:
            self._copies[tp] = _Copy(store)

    def drop(self, tp: TopicPartition) -> None:
        with self._lock:
            copy = self._copies.pop(tp, None)
            if copy is not None:
                copy.store.close()

    def write(self, tp: TopicPartition, values: Mapping[bytes, bytes | None], next_offset: int, now_ms: int) -> None:
        """Write records and the offset after them, in one batch."""
        self._copies[tp].store.write(values, next_offset, now_ms)

    def confirm(self, tp: TopicPartition, level_at: float) -> None:
        """Everything that the topic held at `level_at` is here."""
        copy = self._copies.get(tp)
        if copy is not None:
            copy.level_at = max(copy.level_at, level_at)

    def read(self, tp: TopicPartition, key: bytes) -> bytes | None:
        """The newest value of a key. Raises `NotHere` and `NotLevel`."""
        with self._lock:
            copy = self._copies.get(tp)
            if copy is None:
                raise NotHere(f"{tp.topic}/{tp.partition} is not held here")
            behind = self._clock() - copy.level_at
            if behind > self._stale_seconds:
                since = f"{behind:.1f} s ago" if math.isfinite(behind) else "never"
                raise NotLevel(f"{tp.topic}/{tp.partition} was last known to be complete {since}")
            (value,) = copy.store.get_many([key])
        return value

    def held(self) -> Mapping[TopicPartition, Store]:
        """The open stores. Only for the follower, because only that thread closes them."""
        return {tp: copy.store for tp, copy in self._copies.items()}

    def level(self) -> frozenset[TopicPartition]:
        """The partitions that may be shown now. Any thread may ask."""
        since = self._clock() - self._stale_seconds
        return frozenset(tp for tp, copy in list(self._copies.items()) if copy.level_at >= since)

    def behind_seconds(self) -> float:
        """Seconds since a copy was last known to be complete: the longest of all copies that have ever been."""
        now = self._clock()
        ages = (now - copy.level_at for copy in self._copies.values() if copy.level_at > -math.inf)
        return max(ages, default=0.0)

    def close(self) -> None:
        for tp in list(self._copies):
            self.drop(tp)
