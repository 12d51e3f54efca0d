"""The file in which the decisions of the closed loop outlive the trainer's process."""

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
        """What was saved; a new state when there is nothing, or nothing that can be read."""
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
        """When this returns, the state survives a loss of power. It is written aside and renamed, if it changed."""
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
