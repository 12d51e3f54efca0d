"""Is the process alive, and is it ready? What an orchestrator's probes are told, beside `/metrics`.

The loop says at every turn that it got around, and what keeps it from its work, if anything does. A probe is answered
by another thread, which would say yes for ever of a loop that hangs: so the answer goes by when the loop spoke last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from stream.process import ProcessConfig

__all__ = ["Health"]


class Health:
    """Alive while the loop turned less than `alive_seconds` ago, ready while it waits for nothing besides.

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
        # Replaced as one, so that another thread never sees half of a turn.
        self._last = clock(), "the process is starting"

    def turned(self, waits_for: str = "") -> None:
        """The loop got around; `waits_for` says what it cannot work without, empty when it works."""
        self._last = self._clock(), waits_for

    def why_dead(self) -> str:
        """Empty: alive."""
        since = self._clock() - self._last[0]
        return f"the main loop has not turned for {since:.0f} s" if since > self._alive_seconds else ""

    def why_unready(self) -> str:
        """Empty: ready."""
        return self.why_dead() or self._last[1]

    @property
    def probes(self) -> Mapping[str, Callable[[], str]]:
        """By the path of a request: why the answer is no; empty for yes."""
        return {"/healthz": self.why_dead, "/readyz": self.why_unready}
