"""The life of a model: every step from every phase, and a process killed at every point of one."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.monitor.loop_state import HOUR_MS
from stream.clients.connection import KafkaConnection
from stream.registry.slots import NoWayBack, SlotWriter, announce_rollback, read_slots
from stream.trainer.lifecycle import CRASH_POINTS, IllegalMove, ModelLifecycle
from stream.wire.topics import TopicPlan
from tests.support import lifecycle_worker as worker

pytestmark = pytest.mark.kafka

NOW_MS = int(worker.NOW * 1000)


@pytest.fixture
def opened(kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path) -> Iterator[Callable[[], ModelLifecycle]]:
    """Opens the lifecycle of one trainer, as often as the trainer starts."""
    lifecycles: list[ModelLifecycle] = []

    def open_one() -> ModelLifecycle:
        while lifecycles:
            lifecycles.pop().slots.close()
        lifecycles.append(worker.open_lifecycle(kafka.bootstrap_servers, topics.models, tmp_path))
        return lifecycles[-1]

    yield open_one
    while lifecycles:
        lifecycles.pop().slots.close()


# How each phase is reached, and what each step makes of it; None: the picture has no such step.
PATHS = {
    "none": [],
    "live": [("promote", "v1"), ("promote", "v2")],
    "canary": [("promote", "v1"), ("promote", "v2"), ("begin_canary", "v3")],
    "rolled back": [("promote", "v1"), ("promote", "v2"), ("roll_back", "")],
}
PICTURE = {
    ("none", "promote"): "live",
    ("live", "promote"): "live",
    ("live", "begin_canary"): "canary",
    ("live", "roll_back"): "rolled back",
    ("canary", "promote"): "live",
    ("canary", "end_canary"): "live",
    ("canary", "roll_back"): "rolled back",
    ("rolled back", "promote"): "live",
    ("rolled back", "begin_canary"): "canary",
}


@pytest.mark.parametrize("phase", PATHS)
def test_every_step_from_every_phase_is_in_the_picture_or_refused(
    opened: Callable[[], ModelLifecycle], kafka: KafkaConnection, topics: TopicPlan, phase: str
) -> None:
    lifecycle = opened()
    for step, version in PATHS[phase]:
        worker.take(lifecycle, step, version)
    assert lifecycle.phase == phase
    before = read_slots(kafka, topics.models)
    for step in ("promote", "begin_canary", "end_canary", "roll_back"):
        if (phase, step) not in PICTURE:
            with pytest.raises((IllegalMove, NoWayBack)):
                worker.take(lifecycle, step, "v9")
            assert read_slots(kafka, topics.models) == before and lifecycle.loop.decisions.state.moving is None
    ahead = [step for origin, step in PICTURE if origin == phase]
    worker.take(lifecycle, ahead[-1], "v9")
    assert lifecycle.phase == PICTURE[phase, ahead[-1]]


def test_a_canary_that_is_turned_down_leaves_a_rolled_back_model_as_it_was(
    opened: Callable[[], ModelLifecycle],
) -> None:
    lifecycle = opened()
    for step, version in [*PATHS["rolled back"], ("begin_canary", "v3"), ("end_canary", "")]:
        worker.take(lifecycle, step, version)
    assert lifecycle.phase == "rolled back"


def test_slots_that_change_together_hold_what_the_step_says(
    opened: Callable[[], ModelLifecycle], kafka: KafkaConnection, topics: TopicPlan
) -> None:
    def versions() -> dict[str, str]:
        return {slot: announced.version for slot, announced in read_slots(kafka, topics.models).items()}

    lifecycle = opened()
    for step, version in PATHS["canary"]:
        worker.take(lifecycle, step, version)
    assert versions() == {"live": "v2", "previous": "v1", "candidate": "v3"}
    assert read_slots(kafka, topics.models)["candidate"].share == 0.25
    lifecycle.promote(worker.announcement("v3"), "schedule")
    assert versions() == {"live": "v3", "previous": "v2"}
    lifecycle.begin_canary(worker.announcement("v4"), 0.5)
    lifecycle.roll_back()
    assert versions() == {"live": "v2", "previous": "v2", "retired": "v3"}


def killed_in(kafka: KafkaConnection, topics: TopicPlan, folder: Path, step: str, version: str, point: str) -> None:
    arguments = [kafka.bootstrap_servers, topics.models, str(folder), step, version, point]
    done = subprocess.run([sys.executable, "-m", "tests.support.lifecycle_worker", *arguments], timeout=120)
    assert done.returncode == -9


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_promotion_that_a_kill_interrupts_is_on_probation_or_never_was(
    opened: Callable[[], ModelLifecycle], kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path, point: str
) -> None:
    worker.take(opened(), "promote", "v1")
    opened().slots.close()
    killed_in(kafka, topics, tmp_path, "promote", "v2", point)
    lifecycle = opened()
    state, config = lifecycle.loop.decisions.state, lifecycle.loop.decisions.config
    if point in ("intended", "sent"):
        assert (lifecycle.phase, state.live, state.previous) == ("live", "v1", "")
        lifecycle.promote(worker.announcement("v2"), "drift")  # as the next round does
    assert read_slots(kafka, topics.models)["live"].version == state.live == "v2"
    assert (state.previous, state.promoted_ms) == ("v1", NOW_MS)
    assert state.probation_left == config.probation_rounds
    assert state.absorbing  # the trigger is known, too
    assert state.moving is None


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_rollback_that_a_kill_interrupts_is_carried_out_with_quarantine_and_closed_promotions(
    opened: Callable[[], ModelLifecycle], kafka: KafkaConnection, topics: TopicPlan, tmp_path: Path, point: str
) -> None:
    lifecycle = opened()
    for step, version in PATHS["live"]:
        worker.take(lifecycle, step, version)
    opened().slots.close()
    killed_in(kafka, topics, tmp_path, "roll_back", "", point)
    lifecycle = opened()
    slots, state = read_slots(kafka, topics.models), lifecycle.loop.decisions.state
    assert (slots["live"].version, slots["retired"].version, lifecycle.phase) == ("v1", "v2", "rolled back")
    assert (state.live, state.previous, state.quarantined) == ("v1", "", ["v2"])
    assert state.rollbacks_ms == [NOW_MS] and state.closed_until_ms == NOW_MS + HOUR_MS
    assert state.probation_left == 0 and state.moving is None


@pytest.mark.parametrize("step", ["begin_canary", "end_canary"])
@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_canary_whose_judge_was_killed_serves_nobody_any_more(
    opened: Callable[[], ModelLifecycle],
    kafka: KafkaConnection,
    topics: TopicPlan,
    tmp_path: Path,
    step: str,
    point: str,
) -> None:
    lifecycle = opened()
    for before, version in PATHS["live"]:
        worker.take(lifecycle, before, version)
    opened().slots.close()
    if step == "end_canary":  # whose process begins with the end of what another left
        killed_in(kafka, topics, tmp_path, "begin_canary", "v3", "decided")
    killed_in(kafka, topics, tmp_path, step, "v3", point)
    lifecycle = opened()
    assert lifecycle.phase == "live" and read_slots(kafka, topics.models)["live"].version == "v2"


def test_a_rollback_by_hand_is_noticed_also_by_a_trainer_that_was_not_there(
    opened: Callable[[], ModelLifecycle], kafka: KafkaConnection, topics: TopicPlan
) -> None:
    lifecycle = opened()
    for step, version in PATHS["live"]:
        worker.take(lifecycle, step, version)
    announce_rollback(kafka, topics.models)
    state = opened().loop.decisions.state
    assert (state.live, state.quarantined) == ("v1", ["v2"])
    assert state.closed_until_ms == 0  # an operator is looking already


def test_what_somebody_else_promoted_is_adopted_and_nothing_is_known_against_it(
    opened: Callable[[], ModelLifecycle], kafka: KafkaConnection, topics: TopicPlan
) -> None:
    lifecycle = opened()
    for step, version in PATHS["live"]:
        worker.take(lifecycle, step, version)
    writer = SlotWriter(kafka, topics.models)
    writer.put("live", worker.announcement("by hand"))
    writer.close()
    lifecycle.slots.poll(1.0)
    while lifecycle.slots.live.version != "by hand":  # type: ignore[union-attr]
        lifecycle.slots.poll(1.0)
    assert lifecycle.follow() == "moved"
    state = lifecycle.loop.decisions.state
    assert (state.live, state.probation_left, state.quarantined) == ("by hand", 0, [])
