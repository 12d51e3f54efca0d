"""Whether the process is alive and ready: the answers to an orchestrator's probes, next to `/metrics`.

The main loop reports every turn, and what it waits for, if anything. Another thread answers the probes and runs also
when the loop hangs, so the answer depends on the time of the loop's last report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from stream.process import ProcessConfig

__all__ = ["Health"]


class Health:
    """Alive if the loop's last turn was at most `alive_seconds` ago; ready if it is alive and waits for nothing.

    >>> now = [0.0]
    >>> health = Health(alive_seconds=60, clock=lambda: now[0])
    >>> health.why_dead(), health.why_unready()
    ('', 'the process is starting')
    >>> health.turned("partition 2 is being restored")
    >>> health.why_unready()
    'partition 2 is being restored'
    >>> health.turned()
    >>> health.why_unready()
    ''
    >>> now[0] = 61
    >>> health.why_dead()
    'the main loop has not turned for 61 s'
    """

    def __init__(
        self, alive_seconds: float = ProcessConfig.alive_seconds, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._alive_seconds, self._clock = alive_seconds, clock
        # One tuple, replaced at once, so that another thread never sees the time and the text of different turns.
        self._last = clock(), "the process is starting"

    def turned(self, waits_for: str = "") -> None:
        """Report a turn of the loop; `waits_for` says what it waits for, empty when it works."""
        self._last = self._clock(), waits_for

    def why_dead(self) -> str:
        """Why the process is not alive; empty if it is."""
        since = self._clock() - self._last[0]
        return f"the main loop has not turned for {since:.0f} s" if since > self._alive_seconds else ""

    def why_unready(self) -> str:
        """Why the process is not ready; empty if it is."""
        return self.why_dead() or self._last[1]

    @property
    def probes(self) -> Mapping[str, Callable[[], str]]:
        """By the path of a request: a function that returns why the answer is negative; empty if it is positive."""
        return {"/healthz": self.why_dead, "/readyz": self.why_unready}
