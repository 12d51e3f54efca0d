"""Tells drift of the world from drift of a broken feed, which must not be learnt."""

from __future__ import annotations

from collections.abc import Mapping

from ops.labels import Check
from ops.monitor.loop_state import LoopConfig, LoopState

__all__ = ["FeedFaults"]


class FeedFaults:
    """Reads and writes its part of `state`."""

    def __init__(self, config: LoopConfig, state: LoopState) -> None:
        self._config, self._state = config, state
        self.failed_checks: dict[Check, str] = {}  # of the newest window, with reasons

    @property
    def broken_feed(self) -> str:
        """Why nothing may be learnt from the current events; "" when they may be learnt."""
        return "; ".join(f"{check}: {why}" for check, why in self.failed_checks.items())

    def window(self, drift: Mapping[str, int], failed_checks: Mapping[Check, str]) -> list[str]:
        """Take in a window: the drift state of each signal against the training reference, and the checks that fail.
        Returns the signals whose drift is believed."""
        state, config = self._state, self._config
        self.failed_checks = dict(failed_checks)
        drifting = sorted(signal for signal, level in drift.items() if level == 2)
        state.many = state.many + 1 if len(drifting) >= config.many_signals else 0
        if 0 < state.many <= config.many_windows:
            self.failed_checks["signals"] = f"{len(drifting)} signals drift at once: {', '.join(drifting)}"
        believed = self._without_suspects(drifting)
        self._follow_absorption(drift)
        return believed

    def _without_suspects(self, drifting: list[str]) -> list[str]:
        """The drifting signals without suspects: drift that began during a fault is not believed until well after the
        fault's end."""
        state = self._state
        if self.failed_checks:
            state.suspect = dict.fromkeys({*state.suspect, *drifting}, 0)
            return []
        state.suspect = {
            signal: windows + 1
            for signal, windows in state.suspect.items()
            if signal in drifting and windows < self._config.suspect_windows
        }
        return [signal for signal in drifting if signal not in state.suspect]

    def _follow_absorption(self, drift: Mapping[str, int]) -> None:
        """Ask for a new model when a drift goes on after the round that should have absorbed it."""
        state = self._state
        if not state.absorbing:
            return
        if any(level == 2 for level in drift.values()):
            state.drifted_windows += 1
            if state.drifted_windows > self._config.absorb_windows:
                state.refit, state.absorbing = True, False
        elif drift and all(level == 0 for level in drift.values()):
            state.absorbing = False
