"""`freshet doctor`: does this cluster fit, and if not, what must be done?

Each check yields findings; a check that cannot be made is a finding too. No topic is created and no record is written.
The right to a transactional id is checked with an id that no worker uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    TransactionalIdAuthorizationFailedError,
)

from stream.clients.admin import admin_client, group_operations
from stream.clients.connection import KafkaConnection
from stream.clients.schema_registry import RegistryUnavailable, SchemaRegistry
from stream.cluster.rights import PROCESSES, Process, Right, needed_rights
from stream.wire.mapping import InputMapping
from stream.wire.topics import TopicPlan, topic_problems

__all__ = ["Finding", "Verdict", "examine", "examine_registry"]

Verdict = Literal["fits", "warning", "does not fit"]


class Finding(NamedTuple):
    """What was checked, what was found, and what to do if it does not fit."""

    verdict: Verdict
    subject: str
    found: str
    mend: str = ""


def examine_registry(mapping: InputMapping) -> Iterator[Finding]:
    """Does the Schema Registry answer, if events need one?"""
    if not mapping.registry:
        return
    try:
        SchemaRegistry(mapping.registry_config).answers()
    except RegistryUnavailable as error:
        mend = "check [input] registry and its credentials: updaters wait for it, and nothing is lost meanwhile"
        yield Finding("does not fit", "schema registry", str(error), mend)
        return
    yield Finding("fits", "schema registry", f"{mapping.registry} answers")


def examine(
    connection: KafkaConnection, plan: TopicPlan, processes: tuple[Process, ...] = PROCESSES
) -> Iterator[Finding]:
    """All findings: the cluster, the topics, the rights. Ends early when no broker answers."""
    try:
        admin = admin_client(connection)
    except (KafkaError, OSError) as error:
        yield Finding(
            "does not fit",
            "brokers",
            f"none answers at {connection.bootstrap_servers}: {type(error).__name__}: {error}",
            "check the address, the security protocol and whether Kafka is up; --log-level debug shows more",
        )
        return
    try:
        yield from _cluster(admin, connection, plan)
        yield from _topics(admin, plan)
        yield from _rights(admin, connection, plan, processes)
    finally:
        admin.close()


def _cluster(admin: KafkaAdminClient, connection: KafkaConnection, plan: TopicPlan) -> Iterator[Finding]:
    brokers = [broker for broker in admin.describe_cluster()["brokers"] if not broker.get("is_fenced")]
    security = connection.security_protocol or "PLAINTEXT"
    yield Finding("fits", "brokers", f"{len(brokers)} answer, over {security}")
    if plan.replication_factor > len(brokers):
        yield Finding(
            "does not fit",
            "replication",
            f"{plan.replication_factor} copies of each topic are asked of {len(brokers)} brokers",
            f"set --replication-factor to at most {len(brokers)}",
        )
    elif plan.replication_factor == 1 and len(brokers) > 1:
        yield Finding(
            "warning",
            "replication",
            f"topics are kept once although there are {len(brokers)} brokers: one that is lost takes events with it",
            f"set --replication-factor to {min(3, len(brokers))} before the topics are made",
        )


def _topics(admin: KafkaAdminClient, plan: TopicPlan) -> Iterator[Finding]:
    existing = set(admin.list_topics())
    present = [spec for spec in plan.specs() if spec.name in existing]
    missing = [spec.name for spec in plan.specs() if spec.name not in existing]
    if missing:
        yield Finding(
            "warning",
            "topics",
            f"{', '.join(missing)} are not there, or not to be seen",
            "the first process makes them",
        )
    problems = topic_problems(admin, present) if present else []
    for problem in problems:
        yield Finding("does not fit", problem.topic, problem.found, problem.mend)
    bad = {problem.topic for problem in problems}
    for topic in admin.describe_topics([spec.name for spec in present]) if present else ():
        if topic["name"] not in bad:
            yield _replicas(topic)


def _replicas(topic: dict[str, Any]) -> Finding:
    partitions = topic["partitions"]
    behind = [p["partition_index"] for p in partitions if len(p["isr_nodes"]) < len(p["replica_nodes"])]
    replicas = min((len(p["replica_nodes"]) for p in partitions), default=0)
    found = f"{len(partitions)} partitions, {replicas} {'copy' if replicas == 1 else 'copies'}"
    if behind:
        return Finding(
            "warning",
            topic["name"],
            f"{found}; a copy of partitions {behind} is missing or behind",
            "look after the broker that is down or slow",
        )
    return Finding("fits", topic["name"], found)


def _rights(
    admin: KafkaAdminClient, connection: KafkaConnection, plan: TopicPlan, processes: tuple[Process, ...]
) -> Iterator[Finding]:
    existing = set(admin.list_topics())
    names = [spec.name for spec in plan.specs() if spec.name in existing]
    allowed = {
        topic["name"]: set(topic.get("authorized_operations") or topic.get("topic_authorized_operations") or ())
        for topic in (admin.describe_topics(names) if names else ())
    }
    for process in processes:
        lacking = []
        for right in needed_rights(plan, process):
            if right.resource == "topic" and right.name in allowed:
                absent = tuple(op for op in right.operations if op not in allowed[right.name])
                if absent:
                    lacking.append(right._replace(operations=absent))
            elif right.resource == "group":
                lacking += _group_right(admin, right)
            elif right.resource == "transactional-id":
                lacking += _transaction_right(connection, right)
        for right in lacking:
            operations = ", ".join(right.operations)
            yield Finding(
                "does not fit", process, f"lacks {operations} on {right.resource} {right.name}", right.command()
            )
        if not lacking:
            yield Finding("fits", process, "has the rights it needs on what exists")


def _group_right(admin: KafkaAdminClient, right: Right) -> Iterator[Right]:
    try:
        operations = group_operations(admin, right.name)
    except GroupAuthorizationFailedError:
        yield right
        return
    absent = tuple(op for op in right.operations if op not in operations)
    if operations and absent:
        yield right._replace(operations=absent)


def _transaction_right(connection: KafkaConnection, right: Right) -> Iterator[Right]:
    producer = KafkaProducer(
        **connection.kafka_python(), transactional_id=f"{right.name}doctor", max_block_ms=10_000, metrics_enabled=False
    )
    try:
        producer.init_transactions()
    except TransactionalIdAuthorizationFailedError:
        yield right
    finally:
        producer.close(timeout=2)
