"""Requests that wait for a user's next list."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["Waiters"]


class Waiters:
    """`watch` is called on the event loop; `tell` is called by the thread that writes the lists.

    A request first calls `watch`, then reads the store, then waits. The follower first writes the store, then calls
    `tell`. So a list is either found by the read, or the waiting request is woken.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: dict[bytes, list[asyncio.Event]] = {}

    @contextmanager
    def watch(self, user: bytes) -> Iterator[asyncio.Event]:
        """An event that is set whenever the user's list was written."""
        event = asyncio.Event()
        self._events.setdefault(user, []).append(event)
        try:
            yield event
        finally:
            events = self._events[user]
            events.remove(event)
            if not events:
                del self._events[user]

    def tell(self, users: Iterable[bytes]) -> None:
        """The lists of these users are in the store now."""
        if self._events:  # nearly always no request waits
            self._loop.call_soon_threadsafe(self._wake, list(users))

    def _wake(self, users: list[bytes]) -> None:
        for user in users:
            for event in self._events.get(user, ()):
                event.set()
