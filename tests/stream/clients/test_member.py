import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient, NewTopic

from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.clients.member import poll_as_member

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
