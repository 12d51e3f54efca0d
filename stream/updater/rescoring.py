"""Rescoring: after a promotion the stored histories are sent to the scorer again, slowly, beside the live traffic."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from state import codec
from stream.registry.slots import Slots
from stream.updater.partition import PartitionTask
from stream.updater.refreshes import RefreshSender

__all__ = ["Rescoring", "RescoringConfig"]

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_PAGE = 256
_SLOTS_SECONDS = 0.5  # how often `models` is looked at


@dataclass(frozen=True)
class RescoringConfig:
    users_per_second: float = 200.0
    """Users whom one updater sends to be scored again after a promotion, per second. Fresh events go first."""
    head_start_seconds: float = 5.0
    """How long scorers may load a new model before users are sent to be scored by it. One that needs longer answers
    nobody until it has loaded the model, for up to half a minute."""
    active_days: float = 30.0
    """Users who are scored again: those whose newest event is at most this much older than the newest of all."""

    def __post_init__(self) -> None:
        for name in ("users_per_second", "active_days"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.head_start_seconds < 0:
            raise ValueError(f"head_start_seconds must not be negative, got {self.head_start_seconds}")


class Rescoring:
    """Follows `models`. Each partition has a cursor, which says whom to send next (`stream.updater.cursor`). The
    partitions take turns, one page each, so that no partition waits until another is finished."""

    def __init__(
        self,
        config: RescoringConfig,
        slots: Slots,
        refreshes: RefreshSender,
        clock_ms: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._slots, self._refreshes = config, slots, refreshes
        self._clock_ms, self._clock = clock_ms, clock
        self._slots_due = 0.0
        self._begins = "", 0.0  # version of the live model, and when rescoring for it begins
        self._allowed, self._asked = 0.0, clock()
        self._last = -1  # the partition whose page was sent last
        self._sent = 0  # users sent for the live model
        self.walking = False

    def send_due(self, tasks: Sequence[PartitionTask], newest_ms: int) -> None:
        """Send the users who are next, at most one page of one of these running partitions. `newest_ms` is the newest
        event time of the stream."""
        now = self._clock()
        if now >= self._slots_due:
            self._slots_due = now + _SLOTS_SECONDS
            self._slots.poll()
        live = self._slots.live
        if live is not None and live.version != self._begins[0]:
            self._begins = live.version, now + self._config.head_start_seconds
            self._sent = 0
        if now < self._begins[1]:
            return  # users who were not yet sent for the model before will be sent for this one anyway
        for task in tasks:
            if live is not None and task.unsaved.cursor.version != live.version:
                task.unsaved.cursor = task.unsaved.cursor.begin(live.version)
        waiting = [task for task in tasks if not task.unsaved.cursor.finished]
        self._allowed = min(self._allowed + (now - self._asked) * self._config.users_per_second, _PAGE)
        self._asked = now
        if not waiting:
            self._allowed = 0.0
            if self.walking and tasks:
                log.info("model %s: %d active users are scored again", tasks[0].unsaved.cursor.version, self._sent)
                self.walking, self._sent = False, 0
            return
        self.walking = True
        count = int(self._allowed)
        if count:
            task = min(waiting, key=lambda task: (task.number <= self._last, task.number))
            self._last = task.number
            self._send_page(task, count, newest_ms - int(self._config.active_days * _DAY_MS))

    def _send_page(self, task: PartitionTask, count: int, oldest_ms: int) -> None:
        page, cursor = task.unsaved.cursor.advance(task.store.page(task.unsaved.cursor.after, count), count)
        self._allowed -= len(page)
        for user, stored in page:
            history = codec.decode(stored)
            if not history.items or history.newest_ms < oldest_ms:
                continue
            unsaved = task.unsaved_history(user)
            if unsaved is not None and not codec.decode(unsaved).items:
                continue  # forgotten since the last checkpoint: no list may follow the tombstone
            sent, offset = unsaved or stored, self._slots.live_offset
            self._refreshes.send_stored(task.number, user, sent, self._clock_ms(), offset)
            self._sent += 1
        task.unsaved.cursor = cursor

    def close(self) -> None:
        self._slots.close()
