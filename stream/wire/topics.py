"""Freshet's topics: their names and settings, made when missing and checked when they exist."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError

__all__ = ["SCORER_GROUP", "UPDATER_GROUP", "TopicError", "TopicPlan", "TopicSpec", "ensure_topics"]

log = logging.getLogger(__name__)

# Consumer groups, like topics below the plan's prefix.
UPDATER_GROUP, SCORER_GROUP = "freshet-updater", "freshet-scorer"

_DAY_MS = 24 * 3600 * 1000
_MIB = 1024 * 1024


class TopicError(RuntimeError):
    """Existing topics disagree with what Freshet needs; the message says how to mend each."""


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
    partitions: int = 4  # of interactions, histories, refreshes and recommendations alike
    replication_factor: int = 1
    retention_ms: int = 365 * _DAY_MS  # of interactions and dead letters: how far back a replay can reach
    tombstone_ms: int = 7 * _DAY_MS  # how long a deletion stays visible to a restoring worker
    message_bytes: int = 8 * _MIB  # so that an oversized record reaches the updater and its dead letter

    def __post_init__(self) -> None:
        for name in ("partitions", "replication_factor", "retention_ms", "tombstone_ms", "message_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

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

    def specs(self) -> tuple[TopicSpec, ...]:
        compacted = {"min.cleanable.dirty.ratio": "0.1", "delete.retention.ms": str(self.tombstone_ms)}
        kept = {"retention.ms": str(self.retention_ms)}
        return (
            TopicSpec(
                self.interactions,
                self.partitions,
                "delete",
                # The broker's own clock dates each record: the measure of events from the future and of latency.
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
            # A dead letter is the record unchanged plus headers.
            TopicSpec(self.dead_letters, 1, "delete", kept | {"max.message.bytes": str(self.message_bytes + _MIB)}),
            # A window's totals are written again and again; only the last ones are worth reading.
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


def ensure_topics(admin: KafkaAdminClient, plan: TopicPlan) -> None:
    """Create what is missing and check what exists. Raises `TopicError` naming every disagreement at once."""
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
            # Another process started at the same moment: what it made is checked below like any other.
            admin.wait_for_topics(list(missing))
    problems = _disagreements(admin, specs)
    if problems:
        raise TopicError("these topics do not fit Freshet:\n  " + "\n  ".join(problems))


def _disagreements(admin: KafkaAdminClient, specs: tuple[TopicSpec, ...]) -> list[str]:
    names = [spec.name for spec in specs]
    partitions = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(names)}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs = admin.describe_configs(resources, config_filter="all")["topic"]
    problems = []
    for spec in specs:
        found = partitions.get(spec.name, 0)
        if found != spec.partitions:
            problems.append(
                f"{spec.name} has {found} partitions, {spec.partitions} are needed: set --partitions, or use a --prefix"
            )
        cleanup = configs[spec.name]["cleanup.policy"]["value"]
        if cleanup != spec.cleanup:
            problems.append(
                f"{spec.name} has cleanup.policy={cleanup}, needed is {spec.cleanup}: "
                f"kafka-configs --alter --topic {spec.name} --add-config cleanup.policy={spec.cleanup}"
            )
    return problems
