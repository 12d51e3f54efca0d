"""What the reranker learns from: candidates as they were when a list was made, and the item that came next.

The features are those of the moment when the list was made, not of the event: a list is made once and stands until the
event.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from model.rerank.reranker import Examples
from model.rerank.slates import Slates
from stream.scorer.requests import Request
from stream.wire.meaning import EventKinds

__all__ = ["ExampleKeeper"]

_MOST_WAITING = 5_000  # users whose candidates are kept until their next event: 40 MB


class ExampleKeeper:
    """Single-threaded. The examples that it hands out do not say who the user is."""

    def __init__(self, kinds: EventKinds, most_waiting: int = _MOST_WAITING) -> None:
        self._kinds, self._most_waiting = kinds, most_waiting
        self._waiting: OrderedDict[bytes, Slates] = OrderedDict()  # of one user each
        self._answered: list[Examples] = []

    def listed(self, users: Sequence[bytes], slates: Slates, rows: Iterable[int]) -> None:
        """These rows of slates were ranked for these users."""
        for user, row in zip(users, rows, strict=True):
            self._waiting[user] = slates.row(row)
            self._waiting.move_to_end(user)
        while len(self._waiting) > self._most_waiting:
            self._waiting.popitem(last=False)

    def events(self, requests: Iterable[Request], columns: Callable[[Iterable[str]], np.ndarray]) -> None:
        """Take in new events of users. A user's earliest new events, all of one time, answer the user's last list."""
        for request in requests:
            if request.forgotten or request.reason == "forget":
                self._waiting.pop(request.user, None)
                continue
            if not request.new or request.user not in self._waiting:
                continue
            first_ms = min(event.time_ms for event in request.new)
            items = [
                event.item
                for event in request.new
                if event.time_ms == first_ms
                and self._kinds.positive(event.kind, event.weight)
                and not (event.repeat and self._kinds.plain)  # a repeated item could not stand in the list
            ]
            self.answer(request.user, columns(items))

    def answer(self, user: bytes, columns: np.ndarray) -> None:
        """A user met these items next: `columns`, int64 [n], are columns of the counts."""
        slates = self._waiting.pop(user, None)
        if slates is not None and len(columns):
            self._answered.append(slates.answered(np.zeros(len(columns), dtype=np.int64), columns))

    def take(self) -> list[Examples]:
        """What was answered since the last call."""
        taken, self._answered = self._answered, []
        return taken
