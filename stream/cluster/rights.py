"""The rights on Kafka that each process needs, in the terms of Kafka's access control lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from stream.wire.topics import API_GROUP, SCORER_GROUP, SINK_GROUP, TRAINER_GROUP, UPDATER_GROUP, TopicPlan

__all__ = ["PROCESSES", "Process", "Right", "needed_rights"]

Process = Literal["updater", "scorer", "trainer", "api", "sink"]
PROCESSES: tuple[Process, ...] = ("updater", "scorer", "trainer", "api", "sink")

Resource = Literal["topic", "group", "transactional-id"]


class Right(NamedTuple):
    """`operations` on a resource; with `prefixed`, on every resource whose name begins with `name`."""

    resource: Resource
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False

    def command(self, principal: str = "User:NAME") -> str:
        """The `kafka-acls` command that grants this right."""
        operations = " ".join(f"--operation {_WORDS[operation]}" for operation in self.operations)
        pattern = " --resource-pattern-type prefixed" if self.prefixed else ""
        return f"kafka-acls --add --allow-principal {principal} {operations} --{self.resource} '{self.name}'{pattern}"


_WORDS = {
    "READ": "Read",
    "WRITE": "Write",
    "DESCRIBE": "Describe",
    "DESCRIBE_CONFIGS": "DescribeConfigs",
    "CREATE": "Create",
}
_READ, _WRITE, _BOTH = ("READ",), ("WRITE",), ("READ", "WRITE")


def needed_rights(plan: TopicPlan, process: Process) -> Iterator[Right]:
    """The rights of one process on each resource. Every process checks the settings of every topic when it starts."""
    uses: dict[Process, dict[str, tuple[str, ...]]] = {
        "updater": {
            plan.interactions: _READ,
            plan.routed: _BOTH,
            plan.histories: _BOTH,
            plan.refreshes: _WRITE,
            plan.dead_letters: _WRITE,
            plan.models: _READ,
            plan.layout: _READ,
            plan.monitor_windows: _WRITE,
        },
        "scorer": {
            plan.refreshes: _READ,
            plan.recommendations: _BOTH,
            plan.items: _READ,
            plan.layout: _READ,
            plan.dead_letters: _WRITE,
            plan.models: _READ,
            plan.monitor_windows: _WRITE,
            plan.examples: _WRITE,
            plan.pilots: _BOTH,
        },
        "trainer": {
            plan.histories: _READ,
            plan.layout: _READ,
            plan.models: _BOTH,
            plan.monitor_windows: _READ,
            plan.examples: _READ,
            plan.recommendations: _READ,
            plan.items: _READ,
            plan.item_lists: _BOTH,
            plan.pilots: _BOTH,
        },
        "api": {
            plan.interactions: _WRITE,
            plan.histories: _READ,
            plan.recommendations: _READ,
            plan.api_instances: _BOTH,
            plan.items: _READ,
            plan.item_lists: _READ,
            plan.layout: _READ,
        },
        "sink": {plan.recommendations: _READ, plan.layout: _READ},
    }
    for spec in plan.specs():
        operations = uses[process].get(spec.name, ())
        yield Right("topic", spec.name, (*operations, "DESCRIBE", "DESCRIBE_CONFIGS"))
    groups: dict[Process, dict[str, tuple[str, ...]]] = {
        "updater": {UPDATER_GROUP: ("READ", "DESCRIBE")},
        "scorer": {SCORER_GROUP: ("READ", "DESCRIBE")},
        # The trainer's own group prevents a second trainer; for the other groups the trainer reads the lag.
        "trainer": {TRAINER_GROUP: ("READ", "DESCRIBE"), UPDATER_GROUP: ("DESCRIBE",), SCORER_GROUP: ("DESCRIBE",)},
        "api": {API_GROUP: ("READ", "DESCRIBE")},
        "sink": {SINK_GROUP: ("READ", "DESCRIBE")},
    }
    for group, operations in groups[process].items():
        yield Right("group", plan.prefix + group, operations)
    if process == "updater":
        yield Right("transactional-id", f"{plan.prefix}{UPDATER_GROUP}-", ("WRITE", "DESCRIBE"), prefixed=True)
    if process == "trainer":
        for topic in (plan.models, plan.item_lists):
            yield Right("transactional-id", f"{topic}-trainer", ("WRITE", "DESCRIBE"))
