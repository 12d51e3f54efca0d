"""Supervises child processes: passes on their output, restarts those that end, and stops all within a time limit."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stream.local.forked import Forked, ForkServer
from stream.process import PARENT_PID, REFUSED

__all__ = ["Child", "RestartPolicy", "Supervisor"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RestartPolicy:
    """The wait before a restart doubles from `first_seconds` to `longest_seconds`; after a run of `healthy_seconds` it
    is `first_seconds` again."""

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    healthy_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.first_seconds <= self.longest_seconds:
            raise ValueError(f"need 0 < first <= longest, got {self.first_seconds} and {self.longest_seconds}")

    def wait_seconds(self, previous: float | None, lived: float) -> float:
        """The wait before the next start, after a wait of `previous` and a run of `lived` seconds."""
        if previous is None or lived >= self.healthy_seconds:
            return self.first_seconds
        return min(2 * previous, self.longest_seconds)


@dataclass
class Child:
    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    forked: bool = False  # the command is arguments of `freshet`, and runs in a fork with all imports done
    process: subprocess.Popen[str] | Forked | None = None
    restarts: int = 0
    _started: float = 0.0
    _wait: float | None = None
    _due: float = 0.0


class Supervisor:
    """Starts children, restarts those that end by themselves, and ends all of them within `grace_seconds`.

    `emit(child name, line)` is called for every line of their output. Call `watch` a few times a second.
    """

    def __init__(
        self,
        children: Sequence[Child],
        emit: Callable[[str, str], None],
        *,
        policy: RestartPolicy | None = None,
        grace_seconds: float = 8.0,
    ) -> None:
        self.children = {child.name: child for child in children}
        self._emit, self._policy, self._grace = emit, policy or RestartPolicy(), grace_seconds
        self._fork_server = ForkServer() if any(child.forked for child in children) else None
        self.refused: str | None = None  # a child that refused to work until the cause is corrected

    def start(self) -> None:
        for child in self.children.values():
            self._spawn(child)

    def _spawn(self, child: Child) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **child.environment, PARENT_PID: str(os.getpid())}
        if child.forked and self._fork_server is not None:
            child.process = self._fork_server.run(f"freshet-{child.name}", child.command, environment)
        else:
            child.process = subprocess.Popen(
                list(child.command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # a Ctrl-C reaches the supervisor alone, which ends the children in order
            )
        child._started = time.monotonic()
        threading.Thread(target=self._drain, args=(child.name, child.process), daemon=True).start()

    def _drain(self, name: str, process: subprocess.Popen[str] | Forked) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._emit(name, line.rstrip("\n"))

    def watch(self) -> None:
        """Notice children that ended, and start those that are due."""
        now = time.monotonic()
        for child in self.children.values():
            if child.process is not None and (status := child.process.poll()) is not None:
                if status == REFUSED:
                    self._emit(child.name, "refused to work, for the reason above; it is not started again")
                    self.refused, child.process, child._due = child.name, None, math.inf
                    continue
                child._wait = self._policy.wait_seconds(child._wait, now - child._started)
                child._due, child.process = now + child._wait, None
                self._emit(child.name, f"ended with {_describe(status)}, restarting in {child._wait:.1f} s")
            elif child.process is None and now >= child._due:
                child.restarts += 1
                self._spawn(child)

    def stop(self) -> bool:
        """Send SIGTERM to all children, and SIGKILL to those that still run after `grace_seconds`; True when all ended
        by themselves."""
        running = [child for child in self.children.values() if child.process is not None]
        for child in running:
            assert child.process is not None
            child.process.terminate()
        deadline = time.monotonic() + self._grace
        clean = True
        for child in running:
            assert child.process is not None
            try:
                child.process.wait(max(deadline - time.monotonic(), 0.01))
            except subprocess.TimeoutExpired:
                self._emit(child.name, f"still running after {self._grace:.0f} s, killing it")
                child.process.kill()
                child.process.wait()
                clean = False
        return clean


def _describe(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
