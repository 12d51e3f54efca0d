"""Freshet's topics: their names and settings, made when missing and checked when they exist."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import (
    ClusterAuthorizationFailedError,
    InvalidReplicationFactorError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection

__all__ = [
    "API_GROUP",
    "SCORER_GROUP",
    "SINK_GROUP",
    "TRAINER_GROUP",
    "UPDATER_GROUP",
    "TopicError",
    "TopicPlan",
    "TopicProblem",
    "TopicSpec",
    "ensure_topics",
    "topic_problems",
]

log = logging.getLogger(__name__)

# Consumer groups, like topics below the plan's prefix.
UPDATER_GROUP, SCORER_GROUP = "freshet-updater", "freshet-scorer"
API_GROUP, SINK_GROUP = "freshet-api", "freshet-sink"
TRAINER_GROUP = "freshet-trainer"  # of one member: see `stream.trainer.lock`

_DAY_MS = 24 * 3600 * 1000
_MIB = 1024 * 1024


class TopicError(RuntimeError):
    """Existing topics do not fit what Freshet needs; the message says how to repair each."""


@dataclass(frozen=True)
class TopicSpec:
    name: str
    partitions: int
    cleanup: str  # cleanup.policy
    configs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TopicPlan:
    """Names and settings of every topic. `prefix` keeps several Freshets on one cluster apart."""

    prefix: str = ""
    """Begins every topic and group name: it keeps several Freshets on one cluster apart."""
    partitions: int = 4
    """Number of partitions of interactions, histories, refreshes and recommendations."""
    replication_factor: int = 1
    """Number of copies of each topic that Freshet creates."""
    retention_ms: int = 365 * _DAY_MS
    """How long interactions and dead letters are kept: how far back a replay can reach."""
    tombstone_ms: int = 7 * _DAY_MS
    """How long a deletion stays visible to a worker that restores."""
    message_bytes: int = 8 * _MIB
    """Largest record of `interactions`: a larger one is refused by the broker, not by the updater."""
    min_insync_replicas: int = 0
    """Copies that must have a record before it counts as written. 0: one less than there are, at least 1, so that one
    broker may be missing."""

    def __post_init__(self) -> None:
        for name in ("partitions", "replication_factor", "retention_ms", "tombstone_ms", "message_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.min_insync_replicas <= self.replication_factor:
            raise ValueError(
                f"min_insync_replicas must be from 0 to the {self.replication_factor} replicas, "
                f"got {self.min_insync_replicas}"
            )

    @property
    def interactions(self) -> str:
        return self.prefix + "interactions"

    @property
    def routed(self) -> str:
        return self.prefix + "interactions-routed"

    @property
    def histories(self) -> str:
        return self.prefix + "histories"

    @property
    def refreshes(self) -> str:
        return self.prefix + "refreshes"

    @property
    def recommendations(self) -> str:
        return self.prefix + "recommendations"

    @property
    def models(self) -> str:
        return self.prefix + "models"

    @property
    def dead_letters(self) -> str:
        return self.prefix + "dead-letters"

    @property
    def monitor_windows(self) -> str:
        return self.prefix + "monitor-windows"

    @property
    def items(self) -> str:
        return self.prefix + "items"

    @property
    def item_lists(self) -> str:
        return self.prefix + "item-lists"

    @property
    def examples(self) -> str:
        return self.prefix + "examples"

    @property
    def pilots(self) -> str:
        return self.prefix + "pilots"

    @property
    def layout(self) -> str:
        return self.prefix + "layout"

    @property
    def api_instances(self) -> str:
        return self.prefix + "api-instances"

    @property
    def insync(self) -> str:
        return str(self.min_insync_replicas or max(self.replication_factor - 1, 1))

    def specs(self) -> tuple[TopicSpec, ...]:
        compacted = {"min.cleanable.dirty.ratio": "0.1", "delete.retention.ms": str(self.tombstone_ms)}
        kept = {"retention.ms": str(self.retention_ms)}
        specs = (
            TopicSpec(
                self.interactions,
                self.partitions,
                "delete",
                # The broker's clock gives each record its time, by which latency is measured, and by which events from
                # the future are found.
                kept | {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(self.message_bytes)},
            ),
            # Routed records keep the broker's time of their first arrival.
            TopicSpec(
                self.routed,
                self.partitions,
                "delete",
                {
                    "retention.ms": str(7 * _DAY_MS),
                    "message.timestamp.type": "CreateTime",
                    "max.message.bytes": str(self.message_bytes),
                },
            ),
            TopicSpec(self.histories, self.partitions, "compact", compacted),
            TopicSpec(self.refreshes, self.partitions, "delete", {"retention.ms": str(_DAY_MS)}),
            TopicSpec(self.recommendations, self.partitions, "compact", compacted),
            TopicSpec(self.models, 1, "compact", compacted),
            TopicSpec(self.items, 1, "compact", compacted),
            TopicSpec(self.item_lists, 1, "compact", compacted),
            TopicSpec(self.pilots, 1, "compact", compacted),
            TopicSpec(self.layout, 1, "compact", compacted),
            TopicSpec(self.api_instances, 1, "compact", compacted),
            # A dead letter is the record unchanged plus headers.
            TopicSpec(self.dead_letters, 1, "delete", kept | {"max.message.bytes": str(self.message_bytes + _MIB)}),
            # The trainer looks at the newest ones only, some 100 MB.
            TopicSpec(
                self.examples,
                1,
                "delete",
                {"retention.bytes": str(256 * _MIB), "segment.bytes": str(32 * _MIB), "retention.ms": str(7 * _DAY_MS)},
            ),
            # A window's totals are written again and again; only the last ones are of use.
            TopicSpec(
                self.monitor_windows,
                1,
                "compact,delete",
                {
                    "retention.ms": str(7 * _DAY_MS),
                    "segment.ms": str(_DAY_MS // 24),
                    "min.cleanable.dirty.ratio": "0.1",
                },
            ),
        )
        return tuple(replace(spec, configs={**spec.configs, "min.insync.replicas": self.insync}) for spec in specs)


class TopicProblem(NamedTuple):
    """A setting of an existing topic that does not fit, and how to repair it."""

    topic: str
    found: str
    mend: str

    def __str__(self) -> str:
        return f"{self.topic} {self.found}: {self.mend}"


def ensure_topics(connection: KafkaConnection, plan: TopicPlan) -> None:
    """Create missing topics and check existing ones. Raises `TopicError`, which names all problems at once."""
    with admin_client(connection) as admin:
        _ensure(admin, plan)


def _ensure(admin: KafkaAdminClient, plan: TopicPlan) -> None:
    specs = plan.specs()
    existing = set(admin.list_topics())
    missing = {
        spec.name: {
            "num_partitions": spec.partitions,
            "replication_factor": plan.replication_factor,
            "configs": {"cleanup.policy": spec.cleanup, **spec.configs},
        }
        for spec in specs
        if spec.name not in existing
    }
    if missing:
        try:
            admin.create_topics(missing, wait_for_metadata=True)
            log.info("created topics: %s", ", ".join(missing))
        except TopicAlreadyExistsError:
            # Another process created them at the same moment: its topics are checked below like all others.
            admin.wait_for_topics(list(missing))
        except (TopicAuthorizationFailedError, ClusterAuthorizationFailedError) as error:
            raise TopicError(
                f"no right to create or see {', '.join(missing)}: grant this user Create and Describe on them "
                f"(kafka-acls --add --operation Create --operation Describe --topic NAME), or create them by hand:\n  "
                + "\n  ".join(_create_command(spec, plan) for spec in specs if spec.name in missing)
            ) from error
        except (InvalidReplicationFactorError, PolicyViolationError) as error:
            raise TopicError(
                f"the cluster refuses to create {', '.join(missing)} with {plan.replication_factor} replicas: "
                f"{error}; set --replication-factor to at most the number of brokers, or to what its policy asks for"
            ) from error
    problems = topic_problems(admin, specs)
    if problems:
        raise TopicError("these topics do not fit Freshet:\n  " + "\n  ".join(map(str, problems)))


def _create_command(spec: TopicSpec, plan: TopicPlan) -> str:
    configs = {"cleanup.policy": spec.cleanup, **spec.configs}
    return (
        f"kafka-topics --create --topic {spec.name} --partitions {spec.partitions} "
        f"--replication-factor {plan.replication_factor} "
        + " ".join(f"--config {name}={value}" for name, value in configs.items())
    )


def topic_problems(admin: KafkaAdminClient, specs: Sequence[TopicSpec]) -> list[TopicProblem]:
    """The problems of existing topics, including missing rights to see them or their settings."""
    names = [spec.name for spec in specs]
    described = {topic["name"]: topic for topic in admin.describe_topics(names)}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs = admin.describe_configs(resources, config_filter="all")["topic"]
    problems = []
    for spec in specs:
        partitions = described.get(spec.name, {}).get("partitions", [])
        if not partitions:
            problems.append(TopicProblem(spec.name, "cannot be seen", _grant("Describe", spec.name)))
            continue
        if len(partitions) != spec.partitions:
            problems.append(_partition_problem(spec, len(partitions)))
        found = {name: entry["value"] for name, entry in configs.get(spec.name, {}).items()}
        if "cleanup.policy" not in found:
            problems.append(TopicProblem(spec.name, "does not show its settings", _grant("DescribeConfigs", spec.name)))
            continue
        replicas = min(len(partition["replica_nodes"]) for partition in partitions)
        problems += _setting_problems(spec, found, replicas)
    return problems


def _grant(operation: str, topic: str) -> str:
    return f"grant this user {operation} on it (kafka-acls --add --operation {operation} --topic {topic})"


def _partition_problem(spec: TopicSpec, found: int) -> TopicProblem:
    if found > spec.partitions:
        return TopicProblem(
            spec.name,
            f"has {found} partitions, {spec.partitions} are expected",
            f"if it was grown, users would be split between their old and their new partition: run `freshet "
            f"repartition --partitions {found}`, which moves them; if it always had {found}, set --partitions {found}",
        )
    return TopicProblem(
        spec.name,
        f"has {found} partitions, {spec.partitions} are expected",
        f"set --partitions {found}, or use another --prefix",
    )


def _setting_problems(spec: TopicSpec, found: Mapping[str, str], replicas: int) -> list[TopicProblem]:
    """Only settings that Freshet's guarantees depend on are checked: how long records are kept is the owner's
    choice."""
    problems = []

    def needed(name: str, value: str) -> None:
        problems.append(
            TopicProblem(
                spec.name,
                f"has {name}={found.get(name)}, needed is {value}",
                f"kafka-configs --alter --topic {spec.name} --add-config {name}=[{value}]",
            )
        )

    if set(found["cleanup.policy"].split(",")) != set(spec.cleanup.split(",")):
        needed("cleanup.policy", spec.cleanup)
    timestamps = spec.configs.get("message.timestamp.type")
    if timestamps is not None and found.get("message.timestamp.type") != timestamps:
        needed("message.timestamp.type", timestamps)
    least = int(spec.configs.get("max.message.bytes", 0))
    if least > int(found.get("max.message.bytes") or least):
        needed("max.message.bytes", str(least))
    insync = int(found.get("min.insync.replicas") or 1)
    if insync > replicas:
        problems.append(
            TopicProblem(
                spec.name,
                f"has min.insync.replicas={insync} with {replicas} replicas, so that nothing can be written",
                f"kafka-configs --alter --topic {spec.name} --add-config min.insync.replicas={max(replicas - 1, 1)}",
            )
        )
    return problems
