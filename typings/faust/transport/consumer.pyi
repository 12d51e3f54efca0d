import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from faust.types.tuples import TP

class _Coordinator:
    member_id: str

class _AIOKafkaConsumer:
    _coordinator: _Coordinator
    start: Callable[[], Awaitable[None]]

class _ConsumerThread:
    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> _AIOKafkaConsumer: ...

class Consumer:
    _thread: _ConsumerThread
    wait_first: Callable[..., Awaitable[Any]]
    _active_partitions: set[TP]

    def _get_active_partitions(self) -> set[TP]: ...
    def assignment(self) -> set[TP]: ...
    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool: ...
    async def highwaters(self, *partitions: TP) -> dict[TP, int]: ...
    def pause_partitions(self, tps: Iterable[TP]) -> None: ...
    def resume_partitions(self, tps: Iterable[TP]) -> None: ...
    async def position(self, tp: TP) -> int | None: ...
