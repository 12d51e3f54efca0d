"""Faust's way of a record from the broker to an agent, without the parts a raw batch does not need.

Faust spends more on a record than scoring it does: four asyncio tasks to deliver it, two codecs that change nothing, an
event around it. Here a record is delivered by a plain call, as asyncio's eager tasks of Python 3.12 do, and what
arrives in the channel is the consumed message itself. Flow control, back-pressure, acks and commits stay Faust's.
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
        """Faust would set a decoder of its own on every instance, over the method below."""

    async def decode(self, message: Message, *, propagate: bool = False) -> Message:
        return message


async def batch_producer(app: faust.App) -> AIOKafkaProducer:
    """The app's own producer, for whole record batches: Faust's `send` makes a task and a future for each record."""
    return (await app.maybe_start_producer())._ensure_producer()


def pause(consumer: Consumer, message: Message) -> None:
    """Fetch no more of the partition of a message; what was fetched already still arrives."""
    _own_active_partitions(consumer)
    consumer.pause_partitions({TP(message.topic, message.partition)})


def resume(consumer: Consumer, message: Message) -> None:
    """Fetch the partition of a message again. Faust breaks when it is given the message's own `tp`, which is another
    class of the same name."""
    _own_active_partitions(consumer)
    consumer.resume_partitions({TP(message.topic, message.partition)})


def _own_active_partitions(consumer: Consumer) -> None:
    """Let the fetch under way keep the set that it began with.

    Faust asks that set again for every record that it has fetched, and drops those whose partition has left it: they
    count as read, and would be missing for good. Another thread goes through it, too.
    """
    consumer._active_partitions = set(consumer._get_active_partitions())


def deliver_eagerly(consumer: Consumer) -> None:
    """Make this app's consumer call what delivers a record, and only wait in tasks when the delivery has to wait.

    `Consumer._drain_messages` awaits `wait_first(delivery, flow suspended)` for every record and has no use for the
    answer. `Consumer.wait`, which a consumer that comes back from a rebalance calls, awaits it with one thing.
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
    """A coroutine that was started outside of a task and waits for `awaited`, for a task to go on with."""
    return await _resumed(started, awaited)  # mode takes awaitables, which a generator is not for `collections.abc`


@types.coroutine
def _resumed(started: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, Any]:
    step: Callable[[Any], Any]
    while True:
        try:
            sent = yield awaited
        except BaseException as error:  # noqa: BLE001 - it is thrown into the coroutine
            step, argument = started.throw, error
        else:
            step, argument = started.send, sent
        try:
            awaited = step(argument)
        except StopIteration as end:
            return end.value
