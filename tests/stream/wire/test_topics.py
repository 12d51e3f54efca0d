"""Topics are made as they are needed, and existing ones that do not fit are refused by name with a way out."""

import time
from collections.abc import Iterator

import pytest
from kafka.admin import KafkaAdminClient

from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.wire.topics import TopicError, TopicPlan, ensure_topics, topic_problems

pytestmark = pytest.mark.kafka


@pytest.fixture
def admin(kafka: KafkaConnection) -> Iterator[KafkaAdminClient]:
    with admin_client(kafka) as client:
        yield client


def make(admin: KafkaAdminClient, name: str, partitions: int = 2, **configs: str) -> None:
    settings = {name.replace("_", "."): value for name, value in configs.items()}
    admin.create_topics(
        {name: {"num_partitions": partitions, "replication_factor": 1, "configs": settings}}, wait_for_metadata=True
    )


def test_what_is_made_fits(kafka: KafkaConnection, admin: KafkaAdminClient, plan: TopicPlan) -> None:
    ensure_topics(kafka, plan)
    assert topic_problems(admin, plan.specs()) == []
    ensure_topics(kafka, plan)


@pytest.mark.parametrize(
    ("configs", "problem"),
    [
        ({"message_timestamp_type": "CreateTime"}, "message.timestamp.type=CreateTime, needed is LogAppendTime"),
        ({"cleanup_policy": "compact"}, "cleanup.policy=compact, needed is delete"),
        ({"max_message_bytes": "1000"}, "max.message.bytes=1000, needed is 8388608"),
        ({"min_insync_replicas": "2"}, "min.insync.replicas=2 with 1 replicas"),
    ],
)
def test_a_topic_made_beforehand_that_breaks_a_promise_is_refused_by_name(
    kafka: KafkaConnection, admin: KafkaAdminClient, plan: TopicPlan, configs: dict[str, str], problem: str
) -> None:
    configs = {"message_timestamp_type": "LogAppendTime", "max_message_bytes": str(plan.message_bytes)} | configs
    make(admin, plan.interactions, 2, **configs)
    with pytest.raises(TopicError, match=problem) as refused:
        ensure_topics(kafka, plan)
    assert str(refused.value).count(plan.interactions) == 2  # the topic, and the command that mends it
    assert "kafka-configs --alter" in str(refused.value)


def test_a_policy_in_another_order_fits(kafka: KafkaConnection, admin: KafkaAdminClient, plan: TopicPlan) -> None:
    make(admin, plan.monitor_windows, 1, cleanup_policy="delete,compact")
    ensure_topics(kafka, plan)


def test_a_grown_topic_is_refused_with_the_way_out(
    kafka: KafkaConnection, admin: KafkaAdminClient, plan: TopicPlan
) -> None:
    ensure_topics(kafka, plan)
    admin.create_partitions({plan.interactions: plan.partitions + 2})
    deadline = time.monotonic() + 20  # a busy broker shows the new partitions after it has answered
    with pytest.raises(TopicError, match=f"repartition --partitions {plan.partitions + 2}"):
        while time.monotonic() < deadline:
            ensure_topics(kafka, plan)


def test_more_replicas_than_brokers_is_one_clear_refusal(kafka: KafkaConnection, prefix: str) -> None:
    with pytest.raises(TopicError, match="--replication-factor"):
        ensure_topics(kafka, TopicPlan(prefix, partitions=1, replication_factor=3))


def test_one_broker_may_be_missing_by_default() -> None:
    insync = {replicas: TopicPlan(replication_factor=replicas).insync for replicas in (1, 2, 3, 5)}
    assert insync == {1: "1", 2: "1", 3: "2", 5: "4"}
