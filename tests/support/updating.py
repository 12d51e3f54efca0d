"""An updater run in a thread of the test, and what goes in and comes out of it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kafka import KafkaProducer
from prometheus_client import CollectorRegistry

from ops.labels import RejectionReason
from ops.metrics import UpdaterMetrics
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.health import Health
from stream.updater.config import UpdaterConfig
from stream.updater.worker import Updater
from stream.wire.topics import TopicPlan


@contextmanager
def running(
    config: UpdaterConfig, kafka: KafkaConnection, plan: TopicPlan, health: Health | None = None
) -> Iterator[UpdaterMetrics]:
    """An updater in a thread; leaving the block stops it the way SIGTERM does."""
    metrics = UpdaterMetrics(CollectorRegistry())
    updater = Updater(config, kafka, plan, metrics)
    stop, failure = threading.Event(), []

    def work() -> None:
        try:
            updater.run(stop, health)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
            failure.append(error)

    thread = threading.Thread(target=work, name="updater-under-test")
    thread.start()
    try:
        yield metrics
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
    if failure:
        raise failure[0]


def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.05)


def produce(kafka: KafkaConnection, plan: TopicPlan, records: list[tuple[bytes | None, bytes | None]]) -> None:
    producer = KafkaProducer(**kafka.kafka_python(), linger_ms=5, max_request_size=16 * 1024 * 1024)
    futures = [producer.send(plan.interactions, value, key=key) for key, value in records]
    producer.flush()
    for future in futures:
        future.get(timeout=10)
    producer.close()


def interaction(user: str, item: str, timestamp: int) -> tuple[bytes, bytes]:
    return user.encode(), json.dumps({"user": user, "item": item, "timestamp": timestamp}).encode()


def read_all(kafka: KafkaConnection, topic: str) -> list:
    """Every committed record of a topic."""
    with TopicReader(kafka) as reader:
        reader.assign(reader.partitions(topic))
        reader.to_beginning()
        return list(reader.read_to_end())


def applied(metrics: UpdaterMetrics) -> float:
    return sum(metrics.events_applied[r]._value.get() for r in ("applied", "duplicate", "late"))


def rejected(metrics: UpdaterMetrics) -> float:
    reasons: tuple[RejectionReason, ...] = ("decode", "schema", "timestamp", "oversize")
    return sum(metrics.dead_letters[r]._value.get() for r in reasons)


def group_partitions(kafka: KafkaConnection, plan: TopicPlan) -> dict[str, tuple[int, ...]]:
    """Partitions by the name of each member of the updaters' group; none while it shares them out."""
    group = f"{plan.prefix}freshet-updater"
    with admin_client(kafka) as admin:
        described = admin.describe_groups([group])[group]
    if described["group_state"] != "Stable":
        return {}
    return {
        member["group_instance_id"] or member["member_id"]: tuple(
            sorted(n for topic in member["member_assignment"]["assigned_partitions"] for n in topic["partitions"])
        )
        for member in described["members"]
    }
