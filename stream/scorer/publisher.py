"""Lists on their way to `recommendations`, and refused refreshes on theirs to `dead-letters`."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream.clients.faust_records import batch_producer
from stream.scorer.list_maker import Answer
from stream.scorer.renewal import RenewedList
from stream.wire.dead_letters import dead_letter
from stream.wire.records import Rejected
from stream.wire.topics import TopicPlan

if TYPE_CHECKING:
    import faust
    from faust.types.tuples import Message

__all__ = ["Publisher"]


@dataclass
class _Record:
    """A consumed record, as `stream.wire.dead_letters` reads it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Publisher:
    """Sends through the producer of the Faust app, without Faust's work for each record."""

    def __init__(self, app: faust.App, plan: TopicPlan) -> None:
        self._app, self._plan = app, plan

    async def send_lists(self, answers: Sequence[Answer]) -> list[asyncio.Future[Any]]:
        """Hand the lists over. The futures are done when the brokers have them."""
        return await self._send([(answer.request.partition, answer.request.user, answer.value) for answer in answers])

    async def send_renewed(self, lists: Sequence[RenewedList]) -> list[asyncio.Future[Any]]:
        """Hand lists over that were published before."""
        return await self._send([(renewed.shown.partition, renewed.user, renewed.value) for renewed in lists])

    async def _send(self, records: Sequence[tuple[int, bytes, bytes | None]]) -> list[asyncio.Future[Any]]:
        """One record batch per partition, or more where (partition, user, value) do not fit into one."""
        producer = await batch_producer(self._app)
        topic, now_ms = self._plan.recommendations, int(time.time() * 1000)
        by_partition: dict[int, list[tuple[bytes, bytes | None]]] = defaultdict(list)
        for partition, user, value in records:
            by_partition[partition].append((user, value))
        deliveries: list[asyncio.Future[Any]] = []
        for partition, ready in by_partition.items():
            batch = producer.create_batch()
            for user, value in ready:
                if batch.append(timestamp=now_ms, key=user, value=value) is None:  # full; a first record always fits
                    deliveries.append(await producer.send_batch(batch, topic, partition=partition))
                    batch = producer.create_batch()
                    batch.append(timestamp=now_ms, key=user, value=value)
            deliveries.append(await producer.send_batch(batch, topic, partition=partition))
        return deliveries

    async def send_rejected(self, rejected: Sequence[tuple[Message, Rejected]]) -> list[asyncio.Future[Any]]:
        """Hand over messages that could not be decoded."""
        producer = await batch_producer(self._app)
        letters = [
            dead_letter(_record(message), error, "scorer", self._plan.message_bytes) for message, error in rejected
        ]
        return [await producer.send(self._plan.dead_letters, **letter) for letter in letters]


def _record(message: Message) -> _Record:
    timestamp_ms = int((message.timestamp or 0) * 1000)  # Faust keeps seconds
    return _Record(message.topic, message.partition, message.offset, timestamp_ms, message.key, message.value)
