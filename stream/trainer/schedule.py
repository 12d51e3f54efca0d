"""When a round is due on schedule, and the rounds that were requested by hand."""

from __future__ import annotations

import time
from collections import deque

from ops.labels import RoundOutcome, Trigger, values
from stream.trainer.config import TrainerConfig
from stream.trainer.history_view import HistoryView

__all__ = ["Schedule"]


class Schedule:
    def __init__(self, config: TrainerConfig, view: HistoryView) -> None:
        self._config, self._view = config, view
        self._requests: deque[tuple[Trigger, bool]] = deque()
        self._due = time.monotonic()
        self._tried = False  # a round has begun
        self._left_unlearnt = 0  # new interactions that the last round saw, if its candidate was not published

    def request(self, trigger: Trigger, refit: bool) -> None:
        """See `Trainer.request`."""
        if trigger not in values(Trigger):
            raise ValueError(f"trigger {trigger!r} is none of {', '.join(values(Trigger))}")
        if trigger not in [waiting for waiting, _ in self._requests]:
            self._requests.append((trigger, refit))

    def requested(self) -> tuple[Trigger, bool] | None:
        """Remove and return the oldest request, as (trigger, refit)."""
        return self._requests.popleft() if self._requests else None

    def due(self, first: bool) -> bool:
        """Whether it is time for a round and there is enough to learn. The `first` model needs more."""
        return time.monotonic() >= self._due and self._config.enough(
            first=first and not self._tried,
            changed_users=self._view.changed_users,
            new_interactions=self._view.new_interactions,
            left_unlearnt=self._left_unlearnt,
        )

    def began(self) -> None:
        self._due = time.monotonic() + self._config.round_seconds
        self._tried = True

    def ended(self, outcome: RoundOutcome, new_interactions: int) -> None:
        """`new_interactions`: how many the view counted when the round began."""
        if outcome == "promoted":
            self._left_unlearnt = 0
        elif outcome in ("rejected", "failed"):
            self._left_unlearnt = new_interactions
