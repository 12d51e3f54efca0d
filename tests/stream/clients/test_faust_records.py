"""Records are delivered by a plain call, and a consumer waits for everything else as it did."""

import asyncio
from typing import Any

from mode import Service

from stream.clients.faust_records import deliver_eagerly


class Waiting(Service):
    """All that matters of a consumer here."""


def eagerly(work: Any) -> None:
    async def inside() -> None:
        consumer = Waiting()
        deliver_eagerly(consumer)  # type: ignore[arg-type]
        await work(consumer)

    asyncio.run(inside())


def test_a_delivery_that_waits_for_nothing_is_done_within_the_call_and_one_that_waits_afterwards() -> None:
    async def work(consumer: Any) -> None:
        delivered, suspended, room = [], asyncio.Event(), asyncio.Event()

        async def deliver(record: str, first: asyncio.Event | None = None) -> None:
            if first is not None:
                await first.wait()
            delivered.append(record)

        asyncio.get_running_loop().call_soon(room.set)
        at_once = consumer.wait_first(deliver("a"), suspended.wait())
        try:
            at_once.send(None)
        except StopIteration:
            assert delivered == ["a"]
        await consumer.wait_first(deliver("b", room), suspended.wait())
        assert delivered == ["a", "b"]

    eagerly(work)


def test_a_consumer_that_comes_back_from_a_rebalance_waits_for_its_flow() -> None:
    """Faust's `_wait_next_records` does, with `Consumer.wait`."""

    async def work(consumer: Any) -> None:
        flow = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, flow.set)
        assert (await consumer.wait(flow)).result is True
        assert (await consumer.wait(asyncio.sleep(0, "result"), timeout=5)).result == "result"

    eagerly(work)
