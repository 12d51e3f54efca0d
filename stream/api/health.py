"""Whether the process works, and whether it should be sent requests."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Health"]


class Health:
    """Alive until a thread fails; ready while all assigned partitions can be answered and no stop was asked for."""

    def __init__(self, is_level: Callable[[], bool], ending: threading.Event, failed: threading.Event) -> None:
        self._is_level, self._ending, self._failed = is_level, ending, failed

    def why_dead(self) -> str:
        """Why the process is not alive; empty when it is."""
        return "a thread failed" if self._failed.is_set() else ""

    def why_unready(self) -> str:
        """Why the process is not ready; empty when it is."""
        if self._ending.is_set():
            return "this instance is stopping"
        return self.why_dead() or ("" if self._is_level() else "partitions are being brought here")
