"""A named updater that was killed goes on where it was as soon as it is back; one that stops hands over at once.

Sessions last 30 s here, so whatever happens within a third of that waited for none.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.demo.audit import changelog_histories
from tests.support.arena import Arena, under_load
from tests.support.updating import group_partitions

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(240)]

SESSION = 30.0
SOON = SESSION / 3


def members(arena: Arena) -> dict[str, tuple[int, ...]]:
    return group_partitions(arena.kafka, arena.plan)


def wait(condition: Callable[[], bool], seconds: float, arena: Arena) -> float:
    """Seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "\n".join(arena.recent_lines())
        time.sleep(0.05)
    return time.monotonic() - began


def sharing(arena: Arena) -> dict[str, tuple[int, ...]]:
    """Two updaters with a partition each."""
    for name in ("one", "two"):
        arena.worker(name, session_seconds=SESSION).wait_ready()
    wait(lambda: sorted(members(arena).values()) == [(0,), (1,)], 60, arena)
    return members(arena)


def test_a_killed_updater_serves_its_partitions_again_as_soon_as_it_is_back(arena: Arena) -> None:
    shared = sharing(arena)
    with under_load(arena):
        time.sleep(1)
        arena.workers[0].signal(signal.SIGKILL)
        arena.workers[0].process.wait()
        again = arena.worker("one", session_seconds=SESSION)
        wait(again.ready.is_set, SOON, arena)
        assert members(arena) == shared
    arena.until_caught_up(seconds=SOON)
    assert not any("partitions revoked" in line for line in arena.workers[1].lines)
    assert [worker.stop() for worker in arena.workers[1:]] == [0, 0]
    arena.check()


def test_an_updater_that_stops_hands_its_partitions_over_at_once(arena: Arena) -> None:
    sharing(arena)
    with under_load(arena):
        time.sleep(1)
        assert arena.workers[0].stop() == 0
        wait(lambda: members(arena) == {"two": (0, 1)}, SOON, arena)
    arena.until_caught_up(seconds=SOON)
    assert arena.workers[1].stop() == 0
    arena.check()


def test_of_updaters_of_one_name_all_but_one_are_refused_and_no_event_is_lost(arena: Arena) -> None:
    """Two start at the same moment beside one that works: each may come between the other's steps."""

    def start(n: int) -> subprocess.Popen[str]:
        command = [
            *(sys.executable, "-m", "stream.cli", "--log-level", "error", "updater", "--worker", "same"),
            *("--prefix", arena.plan.prefix, "--partitions", str(arena.plan.partitions), "--metrics-port", "0"),
            *("--state-dir", str(arena.folder / f"same{n}"), "--session-seconds", "10", "--history-items", "20"),
        ]
        environment = {**os.environ, "FRESHET_BOOTSTRAP_SERVERS": arena.kafka.bootstrap_servers}
        root = Path(__file__).parents[2]
        return subprocess.Popen(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)

    updaters = [start(0)]

    def ended() -> list[subprocess.Popen[str]]:
        return [updater for updater in updaters if updater.poll() is not None]

    try:
        arena.send(100)
        wait(lambda: changelog_histories(arena.kafka, arena.plan.histories) == arena.expected(), 60, arena)
        with under_load(arena):
            updaters += [start(1), start(2)]
            wait(lambda: len(ended()) == 2, 60, arena)
            time.sleep(2)
        assert updaters[0] in ended()
        for updater in ended():
            errors = updater.communicate(timeout=10)[1].splitlines()
            assert updater.returncode == 2 and "Traceback" not in " ".join(errors), errors
            assert errors[-1].startswith("freshet: another worker named same has joined the group"), errors
        wait(lambda: changelog_histories(arena.kafka, arena.plan.histories) == arena.expected(), 60, arena)
        (stays,) = [updater for updater in updaters if updater.poll() is None]
        stays.terminate()
        assert stays.wait(20) == 0
        arena.check()
    finally:
        for updater in updaters:
            updater.kill()
            updater.communicate()
