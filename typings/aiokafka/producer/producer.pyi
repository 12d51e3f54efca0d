import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder

class AIOKafkaProducer:
    def create_batch(self) -> BatchBuilder: ...
    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> asyncio.Future[Any]: ...
    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[Any]: ...
