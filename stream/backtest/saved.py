"""The state from which an interrupted backtest continues: one small file, and the ranks."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np

from stream.backtest.config import BacktestError
from stream.backtest.system import SystemState

__all__ = ["UNASKED", "Saved", "SavedState"]

UNASKED = -1  # in place of a rank


class SavedState(msgspec.Struct):
    """The state that cannot be computed again from the log alone."""

    settings: str
    position: int = 0  # events answered and learnt
    systems: dict[str, SystemState] = {}
    fits: int = 0  # of the arm `retrained`
    train_seconds: dict[str, float] = {}
    rank_seconds: dict[str, float] = {}


class Saved:
    """One folder. `ranks` int8 [arms, n] is mapped from its file.

    Raises `BacktestError` when the folder holds another backtest.
    """

    def __init__(self, folder: Path, settings: str, arms: int, events: int) -> None:
        self._path, ranks = folder / "state.msgpack", folder / "ranks.npy"
        folder.mkdir(parents=True, exist_ok=True)
        self.state = self._load(settings)
        shape = (arms, events)
        if self.state.position:
            self.ranks: np.memmap = np.lib.format.open_memmap(ranks, mode="r+")
            if self.ranks.shape != shape:
                raise BacktestError(
                    f"{ranks} has the shape {self.ranks.shape}, not {shape}: start again with --restart"
                )
        else:
            self.ranks = np.lib.format.open_memmap(ranks, mode="w+", dtype=np.int8, shape=shape)
            self.ranks[:] = UNASKED

    def _load(self, settings: str) -> SavedState:
        try:
            state = msgspec.msgpack.decode(self._path.read_bytes(), type=SavedState)
        except FileNotFoundError:
            return SavedState(settings)
        except (msgspec.DecodeError, OSError) as error:
            raise BacktestError(f"{self._path} cannot be read ({error}); start again with --restart") from error
        if state.settings != settings:
            raise BacktestError(
                f"{self._path.parent} holds a backtest of another log or with other settings: finish that one, name "
                "another --folder, or start again with --restart"
            )
        return state

    def save(self) -> None:
        """Write the ranks first, so that a saved state always has its ranks."""
        self.ranks.flush()
        partial = self._path.with_suffix(".partial")
        with partial.open("wb") as file:
            file.write(msgspec.msgpack.encode(self.state))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
