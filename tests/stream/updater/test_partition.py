"""A partition's life in the hands of an updater: what may follow what, and what happens to unsaved changes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from state.store import Store
from stream.updater.partition import IllegalTransition, PartitionTask

Step = Callable[[PartitionTask, Path], None]

STEPS: dict[str, Step] = {
    "restore": lambda task, path: task.restore(Store(path, {"of": "test"}), {"interactions": 7}),
    "run": lambda task, path: task.run({"routed": 3}),
    "release": lambda task, path: task.release(),
    "begin_checkpoint": lambda task, path: task.begin_checkpoint(),
    "requeue": lambda task, path: task.requeue(),
    "complete": lambda task, path: task.complete(),
}
# By the steps that lead there: the state, and what it allows.
LIVES: dict[tuple[str, ...], tuple[str, set[str]]] = {
    (): ("assigned", {"restore", "release"}),
    ("restore",): ("restoring", {"run", "release"}),
    ("restore", "run"): ("running", {"release", "begin_checkpoint"}),
    ("restore", "run", "begin_checkpoint"): ("running", {"release", "requeue", "complete"}),
    ("restore", "run", "begin_checkpoint", "requeue"): ("running", {"release", "begin_checkpoint"}),
    ("restore", "run", "begin_checkpoint", "complete"): ("running", {"release", "begin_checkpoint"}),
    ("release",): ("released", set()),
    ("restore", "release"): ("released", set()),
    ("restore", "run", "release"): ("released", set()),
    ("restore", "run", "begin_checkpoint", "release"): ("released", set()),
}


def lived(steps: tuple[str, ...], path: Path) -> PartitionTask:
    task = PartitionTask(5)
    for step in steps:
        STEPS[step](task, path)
    return task


@pytest.mark.parametrize("steps", LIVES, ids="-".join)
def test_every_state_allows_its_steps_and_refuses_all_others(steps: tuple[str, ...], tmp_path: Path) -> None:
    state, allowed = LIVES[steps]
    for step in STEPS:
        path = tmp_path / step
        task = lived(steps, path)
        assert task.state == state
        if step in allowed:
            STEPS[step](task, path)
        elif step == "restore":  # whose store is opened by the caller
            with pytest.raises(IllegalTransition, match=f"partition 5 is {state}"):
                task.restore(None, {})  # type: ignore[arg-type]
            assert task.state == state
        else:
            with pytest.raises(IllegalTransition, match=f"partition 5 is {state}"):
                STEPS[step](task, path)
            assert task.state == state
        if task.state in ("restoring", "running"):
            task.release()
        Store(path, {"of": "test"}).close()  # a released store is closed: another owner can open it
        with pytest.raises(IllegalTransition):
            _ = task.store


def test_a_checkpoint_carries_what_was_merged_before_it_and_the_next_what_came_since(tmp_path: Path) -> None:
    task = lived(("restore", "run"), tmp_path)
    assert not task.has_unsaved
    task.unsaved.histories |= {b"u": b"1", b"v": b"1"}
    task.unsaved.positions["interactions"] = 9
    assert task.has_unsaved
    task.begin_checkpoint()
    assert not task.unsaved.records and task.unsaved_history(b"u") == b"1"  # merged on what is in flight
    task.unsaved.histories[b"u"] = b"2"
    task.unsaved.positions["interactions"] = 11
    task.complete()
    assert task.committed == {"interactions": 9, "routed": 3}
    assert task.has_unsaved and task.unsaved_history(b"u") == b"2" and task.unsaved_history(b"v") is None
    task.release()


def test_the_load_of_a_refused_checkpoint_goes_with_the_next_beneath_what_is_newer(tmp_path: Path) -> None:
    task = lived(("restore", "run"), tmp_path)
    task.unsaved.histories |= {b"u": b"1", b"v": b"1"}
    task.unsaved.arrivals_ms.append(1)
    task.unsaved.positions["interactions"] = 9
    task.begin_checkpoint()
    task.unsaved.histories[b"u"] = b"2"
    task.unsaved.arrivals_ms.append(2)
    task.unsaved.positions["interactions"] = 11
    task.requeue()
    assert task.committed == {"interactions": 7, "routed": 3}
    assert task.unsaved.histories == {b"u": b"2", b"v": b"1"}
    assert task.unsaved.arrivals_ms == [1, 2]
    assert task.unsaved.positions == {"interactions": 11, "routed": 3}
    task.release()
