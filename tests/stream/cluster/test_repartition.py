"""Users move to the partition that more partitions give them, whole, whatever the run is interrupted by."""

from typing import Any

import msgspec
import pytest
from kafka import KafkaConsumer, KafkaProducer

from state import codec
from state.history import EMPTY, Entry, History, merge_entries
from stream.clients.admin import admin_client, partition_count
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.cluster.repartition import CRASH_POINTS, Moved, RepartitionError, repartition
from stream.wire.layout import Layout, agreed_layout, read_layout, write_layout
from stream.wire.partitioning import home_of
from stream.wire.records import Refresh
from stream.wire.topics import SCORER_GROUP, UPDATER_GROUP, TopicError, TopicPlan

pytestmark = pytest.mark.kafka
LIMIT = 20
USERS = [f"u{n}".encode() for n in range(300)]


def history(*times: int) -> History:
    return merge_entries(EMPTY, [Entry(time_ms, f"i{time_ms}", 1.0) for time_ms in times], LIMIT)


def latest(kafka: KafkaConnection, topic: str) -> dict[tuple[bytes | None, int], bytes]:
    """The last value by (user, partition), deletions applied."""
    with TopicReader(kafka) as reader:
        reader.assign(reader.partitions(topic))
        reader.to_beginning()
        last = {(record.key, record.partition): record.value for record in reader.read_to_end()}
    return {place: value for place, value in last.items() if value is not None}


@pytest.fixture
def laid_out(kafka: KafkaConnection, topics: TopicPlan) -> dict[bytes, History]:
    """Histories, lists and one unread refresh per user over two partitions; a few users are split in two."""
    producer = KafkaProducer(**kafka.kafka_python())
    wanted = {}
    for n, user in enumerate(USERS):
        home = home_of(user, 2)
        wanted[user] = history(n + 1)
        producer.send(topics.histories, codec.encode(wanted[user]), key=user, partition=home)
        value = msgspec.json.encode({"user": user.decode(), "items": [], "published": n + 1})
        producer.send(topics.recommendations, value, key=user, partition=home)
        refresh = Refresh("event", 1, (), codec.encode(wanted[user]))
        producer.send(topics.refreshes, refresh.encode(), key=user, partition=home)
        if n % 50 == 0:  # a client that hashes otherwise wrote this one's other half
            producer.send(topics.histories, codec.encode(history(1000 + n)), key=user, partition=1 - home)
            wanted[user] = history(n + 1, 1000 + n)
            newer = msgspec.json.encode({"user": user.decode(), "items": [], "published": 5000 + n})
            producer.send(topics.recommendations, newer, key=user, partition=1 - home)
    producer.flush()
    producer.close()
    return wanted


def grown(topics: TopicPlan) -> TopicPlan:
    return TopicPlan(topics.prefix, partitions=5)


def check(kafka: KafkaConnection, plan: TopicPlan, wanted: dict[bytes, History]) -> None:
    places = latest(kafka, plan.histories)
    assert {user: codec.decode(value) for (user, _), value in places.items()} == wanted
    assert {place: place[1] for place in places} == {(user, home_of(user, 5)): home_of(user, 5) for user in wanted}
    lists = latest(kafka, plan.recommendations)
    assert lists.keys() == places.keys()
    assert all(msgspec.json.decode(lists[(USERS[n], home_of(USERS[n], 5))])["published"] >= 5000 for n in (0, 50, 100))
    assert read_layout(kafka, plan.layout) == Layout(5, "strict")


def test_every_user_is_whole_in_one_place(
    kafka: KafkaConnection, topics: TopicPlan, laid_out: dict[bytes, History]
) -> None:
    plan = grown(topics)
    moved = repartition(kafka, plan, LIMIT)
    check(kafka, plan, laid_out)
    assert (moved.users, moved.refreshes) == (len(USERS), len(USERS))
    assert 0 < moved.histories <= len(USERS)
    with admin_client(kafka) as admin:
        assert {partition_count(admin, t) for t in (plan.interactions, plan.refreshes, plan.routed)} == {5}
    assert repartition(kafka, plan, LIMIT) == Moved()


def test_refreshes_that_no_scorer_read_are_sent_again_to_the_new_partition(
    kafka: KafkaConnection, topics: TopicPlan, laid_out: dict[bytes, History]
) -> None:
    plan = grown(topics)
    repartition(kafka, plan, LIMIT)
    scorer: Any = KafkaConsumer(  # its stub has what Freshet calls
        plan.refreshes, **kafka.kafka_python(), group_id=plan.prefix + SCORER_GROUP, auto_offset_reset="earliest"
    )
    found = {}
    for record in scorer:
        found[record.key] = record.partition, codec.decode(Refresh.decode(record.value).history)
        if len(found) == len(USERS):
            break
    scorer.close()
    assert found == {user: (home_of(user, 5), wanted) for user, wanted in laid_out.items()}


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_an_interrupted_run_is_finished_by_running_it_again(
    kafka: KafkaConnection, topics: TopicPlan, laid_out: dict[bytes, History], point: str
) -> None:
    plan = grown(topics)

    def crash(passed: str) -> None:
        if passed == point:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repartition(kafka, plan, LIMIT, crash=crash)
    with pytest.raises(TopicError, match="--partitions 5"):
        agreed_layout(kafka, plan)  # no worker starts meanwhile
    repartition(kafka, plan, LIMIT)
    check(kafka, plan, laid_out)


def test_it_waits_for_nobody_who_still_works(kafka: KafkaConnection, topics: TopicPlan) -> None:
    worker = KafkaConsumer(**kafka.kafka_python(), group_id=topics.prefix + UPDATER_GROUP)
    worker.subscribe([topics.interactions])
    while not worker.assignment():
        worker.poll(timeout_ms=200)
    with pytest.raises(RepartitionError, match=f"1 of {topics.prefix}{UPDATER_GROUP}"):
        repartition(kafka, grown(topics), LIMIT)
    worker.close()
    assert read_layout(kafka, topics.layout) is None


def test_fewer_partitions_are_refused(kafka: KafkaConnection, topics: TopicPlan) -> None:
    with pytest.raises(RepartitionError, match="takes none away"):
        repartition(kafka, TopicPlan(topics.prefix, partitions=1), LIMIT)


def test_workers_agree_on_the_layout(kafka: KafkaConnection, topics: TopicPlan) -> None:
    assert agreed_layout(kafka, topics) == Layout(2)
    write_layout(kafka, topics.layout, Layout(2, "strict"))
    assert agreed_layout(kafka, topics).routing == "strict"
    with pytest.raises(TopicError, match="laid out over 2 partitions, not 5"):
        agreed_layout(kafka, grown(topics))
