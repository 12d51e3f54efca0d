"""Tells which models, or their ancestors, learnt from an erased history.

A model trained from scratch has seen the records of `histories` below its offsets, and its descendants have seen them
too. The first model of a line of models is its root (`stream.registry.artifacts.Root`). A model has seen nothing of an
erased user if its root had read `histories` beyond the erasure in every partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from model.errors import ArtifactError
from stream.clients.connection import KafkaConnection
from stream.registry.artifacts import Root, read_provenance
from stream.registry.slots import read_slots
from stream.wire.topics import TopicPlan

__all__ = ["ModelAnswer", "Models", "judge_root", "models_without"]

Saw = Literal["no", "yes", "unknown"]

HOW = (
    "no such model exists yet: send SIGHUP to the trainer, which then learns one from nothing, and all models after it "
    "descend from that one; it serves once it passes the gate. `freshet user receipt FILE` shows when it does"
)


class ModelAnswer(msgspec.Struct):
    slot: str
    version: str
    from_nothing: str  # the version of its root; "" when that is not known
    saw_the_user: Saw
    why: str


class Models(msgspec.Struct):
    first_without: str | None  # the first version none of whose ancestors saw the user
    in_service: list[ModelAnswer]
    next: str  # what to do


def models_without(
    connection: KafkaConnection, plan: TopicPlan, topic_id: str, erased: Mapping[int, int] | None
) -> Models:
    """Whether the models in service saw the user. `erased`: the offset of the erasure in `histories`, by partition;
    None when nothing was known of the user."""
    answers = []
    for slot, announcement in read_slots(connection, plan.models).items():
        if erased is None:
            answers.append(ModelAnswer(slot, announcement.version, "", "no", "nothing was known of the user"))
            continue
        try:
            root = read_provenance(announcement).root
        except ArtifactError as error:
            answers.append(ModelAnswer(slot, announcement.version, "", "unknown", str(error)))
            continue
        saw, why = judge_root(root, topic_id, erased)
        answers.append(ModelAnswer(slot, announcement.version, root.version if root else "", saw, why))
    without = [answer for answer in answers if answer.saw_the_user == "no"]
    first = min((answer.from_nothing or answer.version for answer in without), key=_number, default=None)
    live = next((answer for answer in answers if answer.slot == "live"), None)
    if live is None:
        what = "no model is live: the next one learns from nothing, without the user"
    elif live.saw_the_user == "no":
        what = "nothing: the live model never saw the user"
    elif first is not None:
        what = f"{first} serves once it is promoted"
    else:
        what = HOW
    return Models(first, answers, what)


def judge_root(root: Root | None, topic_id: str, erased: Mapping[int, int]) -> tuple[Saw, str]:
    """Whether models with this root saw what was erased at these offsets of the topic, and why."""
    if root is None:
        return "unknown", "which model from nothing it descends from is not written with it"
    if root.topic_id != topic_id:
        return "unknown", f"{root.version} learnt from a topic that is not there any more"
    before = [number for number, offset in sorted(erased.items()) if root.next_offsets.get(number, 0) <= offset]
    if before:
        partitions = ", ".join(map(str, before))
        return "yes", f"{root.version} learnt before the erasure (partitions {partitions})"
    return "no", f"{root.version} learnt from nothing after the erasure"


def _number(version: str) -> tuple[int, str]:
    """A sort key for versions, by which v9 comes before v10."""
    digits = version.partition("-")[0].removeprefix("v")
    return (int(digits) if digits.isdigit() else 0), version
