"""Children are restarted when they die and are gone when the supervisor stops."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from stream.local.supervisor import Child, RestartPolicy, Supervisor

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def until(supervisor: Supervisor, condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the expected effect did not come"
        supervisor.watch()
        time.sleep(0.02)


def test_a_killed_child_is_restarted_and_its_log_says_why() -> None:
    lines: list[tuple[str, str]] = []
    child = Child("worker", SLEEPER)
    supervisor = Supervisor([child], lambda *line: lines.append(line), policy=RestartPolicy(0.05, 1))
    supervisor.start()
    try:
        until(supervisor, lambda: ("worker", "up") in lines)
        assert child.process is not None
        first = child.process.pid
        os.kill(first, signal.SIGKILL)
        until(supervisor, lambda: lines.count(("worker", "up")) == 2)
        assert child.process.pid != first
        assert child.restarts == 1
        assert any("SIGKILL" in line for _, line in lines)
    finally:
        assert supervisor.stop()


def test_a_deaf_child_is_killed_after_the_grace() -> None:
    lines: list[tuple[str, str]] = []
    child = Child("deaf", DEAF)
    supervisor = Supervisor([child], lambda *line: lines.append(line), grace_seconds=0.3)
    supervisor.start()
    until(supervisor, lambda: ("deaf", "up") in lines)
    assert not supervisor.stop()
    assert child.process is not None and child.process.returncode == -signal.SIGKILL


def test_waits_double_up_to_the_longest_and_start_over_after_a_healthy_life() -> None:
    policy = RestartPolicy(first_seconds=1, longest_seconds=5, healthy_seconds=60)
    waits = [policy.wait_seconds(None, 0)]
    for _ in range(4):
        waits.append(policy.wait_seconds(waits[-1], lived=2))
    assert waits == [1, 2, 4, 5, 5]
    assert policy.wait_seconds(5, lived=61) == 1


def test_a_policy_without_a_wait_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0"):
        RestartPolicy(first_seconds=0)


def test_children_end_with_a_supervisor_that_is_killed() -> None:
    child = "from stream.process import die_with_parent; die_with_parent(); import time; time.sleep(600)"
    program = (
        "import sys, time; from stream.local.supervisor import Child, Supervisor\n"
        f"s = Supervisor([Child('c', [sys.executable, '-c', {child!r}])], print)\n"
        "s.start(); print(s.children['c'].process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    time.sleep(0.5)  # usually after the request to the kernel; a death before it is the other branch
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while _alive(orphan):
        assert time.monotonic() < deadline, "the child outlived its supervisor"
        time.sleep(0.05)
    parent.stdout.close()


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_that_refuses_to_work_is_not_started_again() -> None:
    lines: list[tuple[str, str]] = []
    child = Child("worker", [sys.executable, "-c", "print('set --partitions'); raise SystemExit(2)"])
    supervisor = Supervisor([child], lambda *line: lines.append(line), policy=RestartPolicy(0.01, 1))
    supervisor.start()
    until(supervisor, lambda: supervisor.refused is not None)
    for _ in range(20):
        supervisor.watch()
    assert (supervisor.refused, child.restarts) == ("worker", 0)
    assert supervisor.stop()
