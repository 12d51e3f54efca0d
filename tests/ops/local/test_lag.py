"""Lag is what the brokers say it is, also for a group that never committed and one whose records are gone."""

import threading
import uuid

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.consumer import KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata
from prometheus_client import CollectorRegistry

from ops.local.lag import LagPoller
from ops.metrics import TrainerMetrics
from stream.clients.connection import KafkaConnection


@pytest.mark.kafka
def test_lag_of_a_real_group(kafka: KafkaConnection) -> None:
    topic, client = f"lag-{uuid.uuid4().hex[:8]}", kafka.kafka_python()
    admin = KafkaAdminClient(**client)
    admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True)
    producer = KafkaProducer(**client)
    for number in range(30):
        producer.send(topic, b"x", partition=number % 2).get(10)
    producer.close()
    consumer = KafkaConsumer(**client, group_id=topic, enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, 0)])
    consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(9, "", -1)})
    consumer.close()
    registry = CollectorRegistry()
    poller = LagPoller(admin, {topic: {topic: 2}}, TrainerMetrics(registry), clock=lambda: 12.0)
    found = poller.poll()
    assert found == {(topic, TopicPartition(topic, 0)): 6, (topic, TopicPartition(topic, 1)): 15}
    labels = {"group": topic, "topic": topic, "partition": "0"}
    assert registry.get_sample_value("freshet_consumer_lag_records", labels) == 6
    assert registry.get_sample_value("freshet_consumer_committed_offset", labels) == 9
    assert registry.get_sample_value("freshet_consumer_lag_polled_timestamp_seconds") == 12
    admin.delete_topics([topic])
    admin.close()


def test_brokers_that_do_not_answer_leave_the_time_of_the_last_poll() -> None:
    class Silent:
        closed = False

        def list_group_offsets(self, group_specs: object) -> dict:
            stop.set()
            raise KafkaError("nobody there")

        def list_partition_offsets(self, topic_partition_specs: object) -> dict:
            raise AssertionError("the group is asked first")

        def close(self) -> None:
            self.closed = True

    stop, admin, registry = threading.Event(), Silent(), CollectorRegistry()
    LagPoller(admin, {"g": {"t": 1}}, TrainerMetrics(registry)).run(stop, every_seconds=0)
    assert admin.closed
    assert registry.get_sample_value("freshet_consumer_lag_polled_timestamp_seconds") == 0
