"""Refreshes taken from the agent's channel; those of partitions that may not be answered yet are set aside."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from stream.clients.faust_records import pause, resume

__all__ = ["Inbox"]


class Inbox:
    """`consumer` returns the consumer of the Faust app, which exists once the app is started."""

    def __init__(self, consumer: Callable[[], Any]) -> None:
        self._consumer = consumer
        self._queue: Any = None
        self._ready: deque[Any] = deque()
        self._held: dict[int, list[Any]] = {}  # messages by partition
        self._released = asyncio.Event()
        self._getting: asyncio.Future[Any] | None = None

    def open(self, queue: Any) -> None:
        """Take messages from `queue`."""
        self._queue = queue

    def hold(self, partitions: Iterable[int]) -> None:
        """These partitions were assigned, and no others: answer none of them until `release`. Messages that are here
        already are dropped: they will be read again, because reading begins at the committed offsets."""
        self._ready.clear()
        self._held = {number: [] for number in partitions}

    def release(self, number: int) -> None:
        """This partition may be answered."""
        messages = self._held.pop(number, [])
        if messages:
            self._ready.extend(messages)
            resume(self._consumer(), messages[0])
            self._released.set()

    async def wait(self) -> None:
        """Return when there is something to take. Raises `StopAsyncIteration` when Faust closes the channel."""
        try:
            while not self._ready:
                if self._getting is None and not self._held:  # nearly always
                    self._sort(await self._queue.get())
                else:
                    await self._wait_for_either()
        except BaseException:
            if self._getting is not None:
                self._getting.cancel()
            raise

    async def _wait_for_either(self) -> None:
        """The next message, or the release of a partition whose messages are here already."""
        if self._getting is None:
            self._getting = asyncio.ensure_future(self._queue.get())
        released = asyncio.ensure_future(self._released.wait())
        try:
            await asyncio.wait([self._getting, released], return_when=asyncio.FIRST_COMPLETED)
        finally:
            released.cancel()
        self._released.clear()
        if self._getting.done():
            getting, self._getting = self._getting, None
            self._sort(getting.result())

    def take(self, most: int) -> list[Any]:
        """Up to `most` messages that may be answered, without waiting."""
        while len(self._ready) < most and not self._queue.empty():
            self._sort(self._queue.get_nowait())
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def _sort(self, message: Any) -> None:
        held = self._held.get(message.partition)
        if held is None:
            self._ready.append(message)
            return
        if not held:
            pause(self._consumer(), message)
        held.append(message)

    @property
    def empty(self) -> bool:
        return not (self._ready or any(self._held.values())) and (self._queue is None or self._queue.empty())
