"""Records are delivered by a plain call, and a consumer waits for everything else as it did."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
from faust.types.tuples import TP
from mode import Service

from stream.clients.faust_records import deliver_eagerly, pause, resume


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


def test_what_was_fetched_of_a_partition_arrives_also_when_the_partition_is_paused_meanwhile(tmp_path: Path) -> None:
    """Faust by itself leaves these records out and reads on behind them."""
    app = faust.App("test", broker=["aiokafka://127.0.0.1:1"], datadir=tmp_path, web_enabled=False)
    app.finalize()
    consumer: Any = app.consumer
    one, two = TP("t", 1), TP("t", 2)
    asked = []

    async def fetch(active_partitions: set[TP], timeout: float) -> dict[TP, list[SimpleNamespace]]:
        asked.append(set(active_partitions))
        return {
            tp: [SimpleNamespace(topic="t", partition=tp.partition, offset=n) for n in range(3)] for tp in asked[-1]
        }

    consumer._getmany, consumer.highwater, consumer._to_message = fetch, lambda tp: 3, lambda tp, record: record
    consumer._active_partitions = {one, two}

    async def arrived(change: Any = None) -> set[tuple[int, int]]:
        found = set()
        async for tp, message in consumer.getmany(timeout=1):
            if change is not None and tp == one and message.offset == 0:
                change(consumer, message)
            found.add((tp.partition, message.offset))
        return found

    async def inside() -> None:
        both = {(partition, offset) for partition in (1, 2) for offset in range(3)}
        assert await arrived(pause) == both
        assert await arrived() == {(2, offset) for offset in range(3)}
        resume(consumer, SimpleNamespace(topic="t", partition=1))  # type: ignore[arg-type]
        assert await arrived() == both
        assert asked == [{one, two}, {two}, {one, two}]

    asyncio.run(inside())
