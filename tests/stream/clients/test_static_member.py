"""Of several Faust consumers of one name the one that joined last stays, in every order, and all others are told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer  # type: ignore[attr-defined]  # the stub has what Freshet calls

from stream.clients.connection import KafkaConnection
from stream.clients.names import NameTaken
from stream.clients.static_member import StaticName
from stream.wire.topics import TopicPlan

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

SESSION_MS = 6000  # the least that a broker allows


class Member:
    """What Faust makes of a group's member, without Faust."""

    def __init__(self, kafka: KafkaConnection, plan: TopicPlan, name: str = "same") -> None:
        self._kafka, self._plan = kafka, plan
        self.group = f"{plan.prefix}group"
        self._instance = name or None
        self.name = StaticName(kafka, self.group, name)
        self._thread = SimpleNamespace(_create_consumer=self._create)
        self.name.watch(self)  # type: ignore[arg-type]

    def _create(self, loop: asyncio.AbstractEventLoop) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap_servers,
            group_id=self.group,
            group_instance_id=self._instance,
            enable_auto_commit=False,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=300,
        )

    async def join(self) -> None:
        self.consumer = self._thread._create_consumer(loop=asyncio.get_running_loop())
        await self.consumer.start()
        self.consumer.subscribe([self._plan.interactions])

    @property
    def partitions(self) -> int:
        return len(self.consumer.assignment())

    @property
    def taken(self) -> bool:
        try:
            self.name.check()
        except NameTaken:
            return True
        return False


@asynccontextmanager
async def joined(*members: Member) -> AsyncIterator[None]:
    await asyncio.gather(*(member.join() for member in members))
    try:
        yield
    finally:
        await asyncio.gather(*(member.consumer.stop() for member in members))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


def test_the_earlier_of_two_is_told_and_the_later_is_left_in_peace(kafka: KafkaConnection, topics: TopicPlan) -> None:
    async def work() -> None:
        earlier, later = Member(kafka, topics), Member(kafka, topics)
        async with joined(earlier):
            await until(lambda: earlier.partitions == 2)
            async with joined(later):
                await until(lambda: earlier.taken and later.partitions == 2)
                was = later.consumer._coordinator.member_id
                await asyncio.sleep(1.5)  # five heartbeats
                assert not later.taken and later.consumer._coordinator.member_id == was

    asyncio.run(work())


@pytest.mark.parametrize("count", [2, 5])
def test_of_members_that_join_at_the_same_moment_one_stays(
    count: int, kafka: KafkaConnection, topics: TopicPlan
) -> None:
    async def work() -> None:
        members = [Member(kafka, topics) for _ in range(count)]
        async with joined(*members):
            await until(lambda: sum(member.taken for member in members) == count - 1)
            (stays,) = (member for member in members if not member.taken)
            await until(lambda: stays.partitions == 2)
            await asyncio.sleep(1)
            assert not stays.taken

    asyncio.run(work())


def test_a_refused_commit_does_not_take_the_place_back(kafka: KafkaConnection, topics: TopicPlan) -> None:
    """aiokafka forgets who it is at a refused commit, and then joins as if for the first time."""

    async def work() -> None:
        earlier, later = Member(kafka, topics), Member(kafka, topics)
        async with joined(earlier):
            await until(lambda: earlier.partitions == 2)
            async with joined(later):
                await until(lambda: later.partitions == 2)
                earlier.consumer._coordinator.reset_generation()
                await until(lambda: earlier.taken)
                await asyncio.sleep(1)
                assert not later.taken and later.partitions == 2

    asyncio.run(work())


def test_a_member_that_the_group_forgot_joins_again_when_nobody_has_its_name(
    kafka: KafkaConnection, topics: TopicPlan
) -> None:
    async def work() -> None:
        member = Member(kafka, topics)
        async with joined(member):
            await until(lambda: member.partitions == 2)
            was = member.consumer._coordinator.member_id
            await asyncio.to_thread(member.name.leave)  # as when its session ran out
            await until(lambda: member.consumer._coordinator.member_id not in ("", was) and member.partitions == 2)
            assert not member.taken

    asyncio.run(work())


def test_a_member_that_ends_does_not_throw_out_who_took_its_name(kafka: KafkaConnection, topics: TopicPlan) -> None:
    async def work() -> None:
        earlier, later = Member(kafka, topics), Member(kafka, topics)
        async with joined(earlier):
            await until(lambda: earlier.partitions == 2)
            async with joined(later):
                await until(lambda: later.partitions == 2)
                was = later.consumer._coordinator.member_id
                await asyncio.to_thread(earlier.name.leave)  # whether it knows already or not
                await asyncio.sleep(1)
                assert later.consumer._coordinator.member_id == was and not later.taken

    asyncio.run(work())


def test_members_without_a_name_share(kafka: KafkaConnection, topics: TopicPlan) -> None:
    async def work() -> None:
        members = [Member(kafka, topics, ""), Member(kafka, topics, "")]
        async with joined(*members):
            await until(lambda: all(member.partitions == 1 for member in members))
            assert not any(member.taken for member in members)

    asyncio.run(work())
