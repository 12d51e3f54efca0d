"""Sends lists to `recommendations`, and refused refreshes to `dead-letters`."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from stream.clients.faust_records import batch_producer
from stream.scorer.list_maker import Answer
from stream.scorer.renewal import RenewedList
from stream.scorer.shown_lists import Offsets
from stream.wire.dead_letters import dead_letter
from stream.wire.history_version import HistoryVersion
from stream.wire.made import HEADER
from stream.wire.records import Rejected
from stream.wire.topics import TopicPlan

if TYPE_CHECKING:
    import faust
    from faust.types.tuples import Message

__all__ = ["Departure", "Publisher", "offsets_of"]


# User, value (None: the tombstone of a forgotten user), version, and what the list was made of.
_Outgoing = tuple[bytes, bytes | None, HistoryVersion, bytes]


class Departure(NamedTuple):
    """Lists that were sent as one record batch; their offsets follow each other without a gap."""

    partition: int
    users: Sequence[bytes]
    delivered: asyncio.Future[Any]  # the metadata of the first record


@dataclass
class _Record:
    """A consumed record, as `stream.wire.dead_letters` reads it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Publisher:
    """Sends through the producer of the Faust app, without Faust's work for each record."""

    def __init__(self, app: faust.App, plan: TopicPlan) -> None:
        self._app, self._plan = app, plan

    async def send_lists(self, answers: Sequence[Answer]) -> list[Departure]:
        """Hand the lists over to the producer."""
        by_partition: dict[int, list[_Outgoing]] = defaultdict(list)
        for answer in answers:
            request = answer.request
            by_partition[request.partition].append((request.user, answer.value, request.version, answer.made))
        return [departure for number, lists in by_partition.items() for departure in await self._send(number, lists)]

    async def send_renewed(self, partition: int, lists: Sequence[RenewedList]) -> list[Departure]:
        """Hand over lists of one partition that were published before."""
        return await self._send(partition, [(one.user, one.value, one.last.version, one.made) for one in lists])

    async def _send(self, partition: int, lists: Sequence[_Outgoing]) -> list[Departure]:
        """Send one record batch, or several when the lists do not fit into one."""
        producer, now_ms = await batch_producer(self._app), int(time.time() * 1000)
        departures: list[Departure] = []
        batch, users = producer.create_batch(), list[bytes]()

        async def leave() -> None:
            delivered = await producer.send_batch(batch, self._plan.recommendations, partition=partition)
            departures.append(Departure(partition, users, delivered))

        for user, value, version, made in lists:
            headers = [version.header(), (HEADER, made)] if made else [version.header()]
            if batch.append(timestamp=now_ms, key=user, value=value, headers=headers) is None:  # full
                await leave()
                batch, users = producer.create_batch(), []
                batch.append(timestamp=now_ms, key=user, value=value, headers=headers)  # a first record always fits
            users.append(user)
        if users:
            await leave()
        return departures

    async def send_rejected(self, rejected: Sequence[tuple[Message, Rejected]]) -> list[asyncio.Future[Any]]:
        """Hand over messages that could not be decoded."""
        producer = await batch_producer(self._app)
        letters = [
            dead_letter(_record(message), error, "scorer", self._plan.message_bytes) for message, error in rejected
        ]
        return [await producer.send(self._plan.dead_letters, **letter) for letter in letters]


def offsets_of(departures: Sequence[Departure]) -> Offsets:
    """The offsets of delivered lists of distinct users."""
    offsets: dict[bytes, int] = {}
    ranges: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for partition, users, delivered in departures:
        first = delivered.result().offset
        ranges[partition].append((first, first + len(users)))
        offsets.update(zip(users, range(first, first + len(users)), strict=True))
    return Offsets(offsets, ranges)


def _record(message: Message) -> _Record:
    timestamp_ms = int((message.timestamp or 0) * 1000)  # Faust keeps seconds
    headers = message.headers or ()
    pairs = tuple(headers.items() if isinstance(headers, Mapping) else headers)
    return _Record(message.topic, message.partition, message.offset, timestamp_ms, message.key, message.value, pairs)
