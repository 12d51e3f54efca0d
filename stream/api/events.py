"""Events that arrive over HTTP, checked as the updater checks them and written to `interactions`.

Each event gets a receipt, which says where the event was written, why it cannot be used, or that Kafka did not take it.
An event that is sent twice changes nothing, because histories merge like sets; a client that is in doubt sends it
again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from stream.clients.bulk_producer import close_producer
from stream.clients.connection import KafkaConnection
from stream.wire.mapping import FORGET, PLAIN, own_headers
from stream.wire.partitioning import home_of
from stream.wire.records import Limits, Rejected, decode_interaction
from stream.wire.topics import TopicPlan

__all__ = ["EventWriter", "Receipt", "Unreadable", "split_events"]

_SEND_SECONDS = 10.0  # longest time that Kafka may take


class Unreadable(ValueError):
    """The body as a whole is not one event or a list of them."""


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one event: written (the first four fields), refused or failed."""

    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    as_of: int | None = None  # a list that knows the event has at least this `as_of`
    refused: str | None = None
    failed: str | None = None
    detail: str | None = None


class _Owner(msgspec.Struct):
    """The fields of an event that are needed before it is checked."""

    user: str
    timestamp: int | msgspec.UnsetType = msgspec.UNSET


_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_owner = msgspec.json.Decoder(_Owner)
_anything = msgspec.json.Decoder(Any)


def split_events(body: bytes, most: int) -> list[bytes]:
    """The bytes of each event of a body, which is one object or an array. Raises `Unreadable`."""
    text = body.strip()
    try:
        if text[:1] == b"[":
            events = [bytes(raw) for raw in _raw_list.decode(text)]
        else:
            _anything.decode(text)
            events = [text]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"the body is not JSON: {error}") from None
    if not events:
        raise Unreadable("there is no event")
    if len(events) > most:
        raise Unreadable(f"{len(events)} events, at most {most} are taken at once")
    return events


def prepare(raw: bytes, now_ms: int, limits: Limits) -> tuple[bytes, bytes, int]:
    """Key, value and event time of the record for one event. Raises `Rejected`."""
    try:
        owner = _owner.decode(raw)
        key = owner.user.encode()
    except msgspec.ValidationError as error:
        raise Rejected("schema", str(error)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Rejected("decode", str(error)) from None
    time_ms = owner.timestamp
    if time_ms is msgspec.UNSET:
        raw, time_ms = stamped(raw, now_ms), now_ms
    decode_interaction(key, raw, now_ms, limits)
    return key, raw, time_ms


def stamped(raw: bytes, now_ms: int) -> bytes:
    """The event with its time, added where it is missing; all other bytes stay as they are.

    >>> stamped(b'{"user": "ann", "item": "tea"}', 7)
    b'{"user": "ann", "item": "tea","timestamp":7}'
    """
    head = raw.rstrip()[:-1]
    return head + (b"" if head.strip() == b"{" else b",") + b'"timestamp":%d}' % now_ms


class EventWriter:
    """Writes to `interactions`, by the partitioning of the Java clients."""

    def __init__(self, connection: KafkaConnection, plan: TopicPlan, limits: Limits) -> None:
        self._plan, self._limits = plan, limits
        self._producer = KafkaProducer(
            **connection.kafka_python(),
            acks="all",
            linger_ms=2,
            batch_size=256 * 1024,
            max_request_size=plan.message_bytes,
            max_block_ms=2_000,
            request_timeout_ms=5_000,
            delivery_timeout_ms=int(_SEND_SECONDS * 1000),
            metrics_enabled=False,
        )

    async def write(self, events: Sequence[bytes], now_ms: int) -> list[Receipt]:
        """One receipt for each event, in order."""
        receipts: list[Receipt | None] = []
        good: list[tuple[int, bytes, bytes, int]] = []
        for place, raw in enumerate(events):
            try:
                good.append((place, *prepare(raw, now_ms, self._limits)))
                receipts.append(None)
            except Rejected as error:
                receipts.append(Receipt(refused=error.reason, detail=error.detail[:300]))
        sent = await self._send([(key, value) for _, key, value, _ in good])
        for (place, _, _, time_ms), outcome in zip(good, sent, strict=True):
            receipts[place] = _receipt(outcome, time_ms)
        return [receipt for receipt in receipts if receipt is not None]

    async def forget(self, user: str) -> Receipt:
        """Write the request to forget a user. `failed` is set when Kafka did not take it."""
        (outcome,) = await self._send([(user.encode(), None)])
        return _receipt(outcome, 0)

    async def _send(self, records: list[tuple[bytes, bytes | None]]) -> list[Any]:
        """The outcome of each record: its metadata from the broker, or the error."""
        if not records:
            return []
        delivery = _Delivery(len(records), asyncio.get_running_loop())
        # Sent in a thread, because a producer blocks while it has no metadata of the topic or its memory is full.
        await asyncio.get_running_loop().run_in_executor(None, self._hand_over, records, delivery)
        await delivery.done.wait()
        return delivery.outcomes

    def _hand_over(self, records: list[tuple[bytes, bytes | None]], delivery: _Delivery) -> None:
        for place, (key, value) in enumerate(records):
            partition = home_of(key, self._plan.partitions)
            try:
                future = self._producer.send(
                    self._plan.interactions,
                    value,
                    key=key,
                    partition=partition,
                    headers=own_headers(FORGET if value is None else PLAIN),
                )
            except KafkaError as error:  # it has waited already, and each further record would wait as long
                for rest in range(place, len(records)):
                    delivery.arrived(rest, error)
                return
            future.add_callback(partial(delivery.arrived, place))
            future.add_errback(partial(delivery.arrived, place))

    def close(self) -> None:
        close_producer(self._producer, 3)


class _Delivery:
    """Collects the outcomes of records, from any thread, and wakes the event loop when all of them are there."""

    def __init__(self, records: int, loop: asyncio.AbstractEventLoop) -> None:
        self.outcomes: list[Any] = [None] * records
        self.done = asyncio.Event()
        self._loop, self._missing, self._lock = loop, records, threading.Lock()

    def arrived(self, place: int, outcome: Any) -> None:
        with self._lock:
            self.outcomes[place] = outcome
            self._missing -= 1
            last = not self._missing
        if last:
            self._loop.call_soon_threadsafe(self.done.set)


def _receipt(outcome: Any, time_ms: int) -> Receipt:
    if isinstance(outcome, BaseException):
        return Receipt(failed=type(outcome).__name__, detail=f"{outcome}"[:300])
    # The updater sets the time of an event that is ahead of the broker's clock back to its arrival at the broker.
    as_of = min(time_ms, outcome.timestamp)
    return Receipt(outcome.topic, outcome.partition, outcome.offset, as_of)
