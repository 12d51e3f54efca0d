"""The tables of docs/kafka.md say what the code needs."""

import re
from pathlib import Path

import pytest

from stream.cluster.rights import PROCESSES, Process, needed_rights
from stream.wire.topics import TopicPlan

PAGE = (Path(__file__).parents[3] / "docs" / "kafka.md").read_text()


def cells(first: str) -> list[set[str]]:
    """The names in each cell of the table row that begins with this cell."""
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {first} |")]
    return [set(re.findall(r"`([^`]+)`", cell)) for cell in row.strip("|").split("|")[1:]]


@pytest.mark.parametrize("process", PROCESSES)
def test_the_rights_of_a_process(process: Process) -> None:
    rights = list(needed_rights(TopicPlan(), process))
    topics = [right for right in rights if right.resource == "topic"]
    reads, writes, groups, transactions = cells(process)
    assert reads == {right.name for right in topics if "READ" in right.operations}
    assert writes == {right.name for right in topics if "WRITE" in right.operations}
    assert groups == {right.name for right in rights if right.resource == "group"}
    assert transactions == {right.name for right in rights if right.resource == "transactional-id"}
    assert all({"DESCRIBE", "DESCRIBE_CONFIGS"} <= set(right.operations) for right in topics)


def test_every_topic_and_its_policy() -> None:
    for spec in TopicPlan().specs():
        (row,) = [line for line in PAGE.splitlines() if line.startswith("| `") and f"`{spec.name}`" in line]
        assert f"cleanup.policy={spec.cleanup}" in row
        assert ("--partitions" in row) == (spec.partitions > 1)
