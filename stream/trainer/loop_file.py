"""The file that keeps the decisions of the closed loop when the trainer's process ends."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from ops.monitor.loop_state import LoopState

__all__ = ["LoopFile"]

log = logging.getLogger(__name__)


class LoopFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = b""

    def load(self) -> LoopState:
        """The saved state; a new state when there is none, or none that can be read."""
        try:
            self._saved = self._path.read_bytes()
            state = LoopState.decode(self._saved)
        except FileNotFoundError:
            return LoopState()
        except msgspec.DecodeError as error:
            log.error("%s is unreadable, the closed loop starts from nothing: %s", self._path, error)
            return LoopState()
        state.running = False  # a round ends with its process
        return state

    def save(self, state: LoopState) -> None:
        """Write the state aside and rename it, if it changed. When this returns, it is safe from a loss of power."""
        encoded = state.encode()
        if encoded == self._saved:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(".partial")
        with aside.open("wb") as file:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too
        finally:
            os.close(folder)
        self._saved = encoded
