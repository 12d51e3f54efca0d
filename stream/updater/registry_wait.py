"""Waits for a Schema Registry that does not answer: events that need it stay in the topic, and are read again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

__all__ = ["RegistryWait"]

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 0.5  # from one try to the next
_LOG_SECONDS = 60.0
_FRESH_SECONDS = 10.0  # how long a failed try counts; the next try may take until its timeout


class RegistryWait:
    """What the updater's probe reports while the registry does not answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._why, self._failed, self._logged = "", -_FRESH_SECONDS, -_LOG_SECONDS

    def note(self, error: Exception) -> None:
        """Another try failed."""
        self._why, self._failed = f"events wait for the schema registry: {error}", self._clock()
        if self._failed - self._logged >= _LOG_SECONDS:
            self._logged = self._failed
            log.warning("%s", self._why)

    @property
    def waits_for(self) -> str:
        """Empty when the last tries went well."""
        return self._why if self._clock() - self._failed < _FRESH_SECONDS else ""

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the registry is asked again; 0 when the last failure was long enough ago."""
        return max(self._failed + _AGAIN_SECONDS - self._clock(), 0.0)
