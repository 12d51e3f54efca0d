"""A member of a group keeps its place, and reads what the brokers have now."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

import stream.clients.member
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.clients.member import GroupMember, poll_as_member, poll_fresh
from stream.clients.names import NameTaken
from stream.wire.topics import TopicPlan

SESSION_SECONDS = 6.0


@contextmanager
def topic(kafka: KafkaConnection, name: str, partitions: int) -> Iterator[KafkaAdminClient]:
    with admin_client(kafka) as admin:
        admin.create_topics([NewTopic(name, partitions, 1)])
        yield admin
        admin.delete_topics([name])


def poll_until(consumer: KafkaConsumer, partitions: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        poll_as_member(consumer, 0)  # ends before any answer
        if len(consumer.assignment()) == partitions:
            return True
        time.sleep(0.005)
    return False


def test_a_member_keeps_its_place_when_its_topic_grows_and_no_poll_waits(kafka: KafkaConnection, prefix: str) -> None:
    name = f"{prefix}topic"
    with topic(kafka, name, 2) as admin:
        consumer = KafkaConsumer(
            name,
            **kafka.kafka_python(),
            group_id=f"{prefix}group",
            session_timeout_ms=int(SESSION_SECONDS * 1000),
            heartbeat_interval_ms=500,
            metadata_max_age_ms=500,
            enable_auto_commit=False,
        )
        with closing(consumer):
            assert poll_until(consumer, 2, 20)
            first = consumer.group_metadata().generation_id
            assert first <= 2  # it does not join over and over
            admin.create_partitions({name: 3})
            assert poll_until(consumer, 3, 20)
            poll_until(consumer, 99, SESSION_SECONDS + 1)
            (group,) = admin.describe_groups([f"{prefix}group"]).values()
            assert [member["member_id"] for member in group["members"]] == [consumer.group_metadata().member_id]
            assert group["group_state"] == "Stable"


@pytest.fixture
def resting(kafka: KafkaConnection, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaConsumer]:
    """A consumer that has b in memory, while the broker has c too."""
    monkeypatch.setattr(stream.clients.member, "_ANSWER_SECONDS", 10.0)  # however slow the machine is
    name = f"{prefix}topic"
    consumer = KafkaConsumer(
        **kafka.kafka_python(), group_id=f"{prefix}group", auto_offset_reset="earliest", enable_auto_commit=False
    )
    with (
        admin_client(kafka) as admin,
        closing(KafkaProducer(**kafka.kafka_python())) as producer,
        closing(consumer),
    ):
        admin.create_topics([NewTopic(name, 1, 1)])
        consumer.subscribe([name])
        producer.send(name, b"a").get(10)
        deadline = time.monotonic() + 20
        while not consumer.poll(200):
            assert time.monotonic() < deadline
        assert not consumer.poll(200)  # asks, and leaves without an answer
        producer.send(name, b"b").get(10)
        while not consumer._fetcher._completed_fetches:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        producer.send(name, b"c").get(10)
        yield consumer
        admin.delete_topics([name])


def values(polled: dict) -> list[bytes]:
    return [record.value for records in polled.values() for record in records]


def test_what_came_since_the_last_poll_is_read_with_what_lay_in_memory(resting: KafkaConsumer) -> None:
    assert values(poll_fresh(resting, 1.0, enough=100)) == [b"b", b"c"]


def test_a_backlog_is_taken_from_memory_while_the_next_is_fetched(resting: KafkaConsumer) -> None:
    assert values(poll_fresh(resting, 1.0, enough=1)) == [b"b"]


SESSION = 30.0  # in a test that ends long before, nothing waited for it


@pytest.fixture
def join(kafka: KafkaConnection, topics: TopicPlan) -> Iterator[Callable[..., GroupMember]]:
    """Makes members of one group that shares out the two partitions of `interactions`."""
    members: list[GroupMember] = []

    def make(name: str | None = None) -> GroupMember:
        settings = {"session_seconds": SESSION, "poll_records": 10, "fetch_bytes": 1024}
        members.append(GroupMember(kafka, topics.prefix + "g", topics.interactions, instance=name, **settings))  # type: ignore[arg-type]
        return members[-1]

    yield make
    for member in members:
        member.close()


def owned(member: GroupMember) -> set[int]:
    return {tp.partition for tp in member._consumer.assignment()}


def poll_all(
    members: list[GroupMember], condition: Callable[[], bool], seconds: float = 30.0, rest_seconds: float = 0.0
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, [(owned(member), member.metadata) for member in members]
        for member in members:
            member.poll(0.02, enough=1)
        time.sleep(rest_seconds)


def sharing(join: Callable[..., GroupMember], *names: str | None, rest_seconds: float = 0.0) -> list[GroupMember]:
    """Two members with a partition each, and nothing more to share out."""
    members = [join(name) for name in names]

    def shared() -> bool:
        stable = {member.metadata.state for member in members} == {"<stable>"}
        return stable and sorted(map(sorted, map(owned, members))) == [[0], [1]]

    poll_all(members, shared, rest_seconds=rest_seconds)
    return members


def at_rest(members: list[GroupMember], seconds: float = 1.5) -> None:
    """Return when they have been stable in one generation for a while. One that joins waits, in its old generation, for
    the others, which hear of it in the answer to a heartbeat, so an unchanged generation alone says nothing."""
    known, since = set[tuple[int, str]](), time.monotonic()

    def rested() -> bool:
        nonlocal known, since
        found = {(member.metadata.generation_id, member.metadata.state) for member in members}
        if found != known:
            known, since = found, time.monotonic()
        return {state for _, state in known} == {"<stable>"} and len(known) == 1 and time.monotonic() - since > seconds

    poll_all(members, rested)


def test_members_that_poll_rarely_join_once_and_not_over_and_over(join: Callable[..., GroupMember]) -> None:
    """The answers to a join come while they do not poll."""
    members = sharing(join, None, None, rest_seconds=0.3)
    joined = [member.metadata.generation_id for member in members]
    assert max(joined) <= 8  # both joins, what had to be given up, and a join or two more where the machine stalls
    rounds = iter(range(8))
    poll_all(members, lambda: next(rounds, None) is None, rest_seconds=0.3)
    assert [member.metadata.generation_id for member in members] == joined


def test_partitions_of_a_named_member_wait_for_its_restart_and_nobody_else_notices(
    join: Callable[..., GroupMember],
) -> None:
    first, other = sharing(join, "first", "other")
    at_rest([first, other])
    was, generation = owned(first), other.metadata.generation_id
    other.moves.clear()
    first.close(stay=True)  # as when it is killed
    again = join("first")
    poll_all([again, other], lambda: owned(again) == was)
    assert other.metadata.generation_id == again.metadata.generation_id == generation
    assert not other.moves and [move.kind for move in again.moves] == ["assigned"]


@pytest.mark.parametrize("name", ["first", None])
def test_a_member_that_leaves_hands_its_partitions_over_at_once(name: str, join: Callable[..., GroupMember]) -> None:
    first, other = sharing(join, name, "other")
    first.close()
    poll_all([other], lambda: owned(other) == {0, 1}, seconds=SESSION / 3)


def test_of_two_members_of_one_name_the_earlier_is_refused(join: Callable[..., GroupMember]) -> None:
    first = join("same")
    poll_all([first], lambda: owned(first) == {0, 1})
    first.refuse_second()  # there is none
    second = join("same")
    poll_all([second], lambda: owned(second) == {0, 1})
    with pytest.raises(NameTaken, match=r"another worker named same has joined the group .*: give every worker a name"):
        poll_all([first], lambda: False, seconds=SESSION / 2)
    assert owned(second) == {0, 1}
    poll_all([second], lambda: second.metadata.state == "<stable>")
