"""Delivers records from Faust's consumer to an agent, without the steps that a raw batch does not need.

For each record, Faust's own delivery takes longer than scoring it: four asyncio tasks, two codecs that change nothing,
and an event object. Here a record is delivered by a plain call, as by the eager tasks of asyncio in Python 3.12, and
the channel gets the consumed message itself. Faust still does flow control, back-pressure, acks and commits.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

import faust
from faust.types.tuples import TP

if TYPE_CHECKING:
    from faust.transport.consumer import Consumer
    from faust.transport.drivers.aiokafka import AIOKafkaProducer
    from faust.types.tuples import Message

__all__ = ["RawTopic", "batch_producer", "deliver_eagerly", "pause", "resume"]


class RawTopic(faust.Topic):
    """A topic whose channels carry messages with `key` and `value` as bytes."""

    def _compile_decode(self) -> None:
        """Do nothing: Faust would set its own decoder on every instance, in place of the method below."""

    async def decode(self, message: Message, *, propagate: bool = False) -> Message:
        return message


async def batch_producer(app: faust.App) -> AIOKafkaProducer:
    """The app's own producer, for whole record batches: Faust's `send` makes a task and a future for each record."""
    return (await app.maybe_start_producer())._ensure_producer()


def pause(consumer: Consumer, message: Message) -> None:
    """Stop fetching the partition of a message; records that were fetched already still arrive."""
    _own_active_partitions(consumer)
    consumer.pause_partitions({TP(message.topic, message.partition)})


def resume(consumer: Consumer, message: Message) -> None:
    """Fetch the partition of a message again. The partition is made anew as Faust's `TP`: the message's own `tp` is of
    another class with the same name, with which Faust fails."""
    _own_active_partitions(consumer)
    consumer.resume_partitions({TP(message.topic, message.partition)})


def _own_active_partitions(consumer: Consumer) -> None:
    """Replace the set of active partitions by a copy, so that the fetch under way keeps the set that it began with.

    For every fetched record Faust looks into that set, and drops the record if its partition is no longer there: it
    then counts as read and would never be processed. Another thread iterates over the set, too.
    """
    consumer._active_partitions = set(consumer._get_active_partitions())


def deliver_eagerly(consumer: Consumer) -> None:
    """Make this app's consumer deliver records by plain calls, and use tasks only when a delivery has to wait.

    `Consumer._drain_messages` awaits `wait_first(delivery, flow suspended)` for every record and ignores the result.
    `Consumer.wait`, which a consumer calls after a rebalance, awaits `wait_first` with a single argument.
    """
    wait_first = consumer.wait_first

    async def eager(*awaitables: Any, timeout: float | None = None) -> Any:
        if len(awaitables) != 2:
            return await wait_first(*awaitables, timeout=timeout)
        delivery, suspended = awaitables
        try:
            awaited = delivery.send(None)
        except StopIteration:
            suspended.close()
            return None
        except BaseException:
            suspended.close()
            raise
        return await wait_first(_rest(delivery, awaited), suspended)

    consumer.wait_first = eager


async def _rest(started: Coroutine[Any, Any, Any], awaited: Any) -> Any:
    """Continue, in a task, a coroutine that was started outside of a task and now waits for `awaited`."""
    return await _resumed(started, awaited)  # a generator alone would not be an `Awaitable` for mode


@types.coroutine
def _resumed(started: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, Any]:
    step: Callable[[Any], Any]
    while True:
        try:
            sent = yield awaited
        except BaseException as error:  # noqa: BLE001 - the error is thrown into the coroutine
            step, argument = started.throw, error
        else:
            step, argument = started.send, sent
        try:
            awaited = step(argument)
        except StopIteration as end:
            return end.value
