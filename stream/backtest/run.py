"""A backtest from its first event to its last: it asks the arms, stores their ranks, lets them learn, and holds rounds.

A backtest can be interrupted and continued. Ranks, decisions and models are saved in one folder after every round and
every `checkpoint_events` events. Histories and popularity are computed again from the log, which takes seconds where
answering took hours. An interrupted backtest ends with the same ranks as one that was not interrupted.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from state.store import StoreMemory
from stream.backtest.arms import FreshPopularity, RefittedArm, Service
from stream.backtest.config import BacktestConfig, Interrupted
from stream.backtest.event_log import EventLog, batches
from stream.backtest.lineup import build_arms
from stream.backtest.model_arms import Retrained
from stream.backtest.outcome import Outcome
from stream.backtest.saved import Saved
from stream.backtest.system import RoundReport, System
from stream.backtest.timeline import Batch, HistoryTimeline
from stream.trainer.fine_tune import Stopped

__all__ = ["Backtest"]


class Backtest:
    """One run over one log. `progress(doing, events)` is called during the run, `on_round(arm, report)` after a round.

    Raises `BacktestError` when `folder` holds another backtest.
    """

    def __init__(
        self,
        log: EventLog,
        config: BacktestConfig,
        folder: Path,
        device: torch.device,
        *,
        stop: threading.Event | None = None,
        progress: Callable[[str, int], None] = lambda doing, events: None,
        on_round: Callable[[str, RoundReport], None] = lambda arm, report: None,
    ) -> None:
        self._log, self._config, self._progress, self._on_round = log, config, progress, on_round
        self._stop = stop or threading.Event()
        settings = f"{log.fingerprint()} {config.fingerprint()}"
        self._saved = Saved(folder, settings, len(config.names), len(log))
        shutil.rmtree(folder / "state", ignore_errors=True)  # it is computed again from the log
        memory, kinds = StoreMemory(), config.lists.events
        self._service = Service(log, kinds, config.lists.popularity_half_life_ms)
        self._timeline = HistoryTimeline(log, folder / "state" / "histories", memory, kinds, config.history_items)
        states = self._saved.state.systems
        self._arms = build_arms(config, self._service, folder, device, memory, states, self._stop, self._doing)
        self._saved.state.systems = {name: arm.state for name, arm in self._arms.items() if isinstance(arm, System)}

    def _doing(self, what: str) -> None:
        self._progress(what, self._saved.state.position)

    def run(self) -> Outcome:
        """Run to the end of the log. Raises `Interrupted` when `stop` was set before the end."""
        state, config = self._saved.state, self._config
        try:
            self._read_again(state.position)
            since_checkpoint = 0
            for first, end in batches(self._log, config.batch_events, state.position):
                if self._stop.is_set():
                    self._save()
                    raise Interrupted
                held = self._step(self._timeline.advance(first, end))
                state.position = end
                since_checkpoint += end - first
                self._doing("events")
                if held or since_checkpoint >= config.checkpoint_events or end == len(self._log):
                    since_checkpoint = 0
                    self._save()
                for name, report in held.items():  # after saving, so that no round is reported twice
                    self._on_round(name, report)
        except Stopped:  # in the middle of a round: the next run continues from the last checkpoint
            raise Interrupted from None
        finally:
            self._close()
        return self.outcome()

    def outcome(self) -> Outcome:
        """The result of the ranks so far."""
        system = self._arms["system"]
        assert isinstance(system, System)
        return Outcome(
            self._log,
            self._config.names,
            self._saved.ranks,
            {name: arm.train_seconds for name, arm in self._arms.items()},
            dict(self._saved.state.rank_seconds),
            {name: arm.state.rounds for name, arm in self._arms.items() if isinstance(arm, System)},
        )

    def _step(self, batch: Batch) -> dict[str, RoundReport]:
        """Answer and learn a batch; returns the rounds that were held, by arm."""
        seconds = self._saved.state.rank_seconds
        events = [question.event for question in batch.questions]
        for row, (name, arm) in enumerate(self._arms.items()):
            start = time.perf_counter()
            if events:
                self._saved.ranks[row, events] = arm.ranks(batch)
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
        self._learn(batch)
        for arm in self._arms.values():
            arm.learn(batch)
        systems = {name: arm for name, arm in self._arms.items() if isinstance(arm, System)}
        turns = {name: self._turn(name, system, batch) for name, system in systems.items()}
        return {name: report for name, report in turns.items() if report is not None}

    def _learn(self, batch: Batch) -> None:
        self._timeline.learn(batch)
        self._service.learn(batch)

    def _turn(self, name: str, system: System, batch: Batch) -> RoundReport | None:
        """The round that was held, if any; arms that are fitted after the system's rounds then have been fitted."""
        report = system.turn(batch)
        if report is not None and name == "system":
            for other, arm in self._arms.items():
                self._doing(f"{other}: round {len(system.state.rounds)}")
                arm.round_held(self._timeline)
        return report

    def _read_again(self, position: int) -> None:
        """Bring histories, popularity and views to their state at `position`, without asking a model."""
        if not position:
            return
        state = self._saved.state
        last_round = max((report.event for report in state.systems["system"].rounds), default=0)
        for first, end in batches(self._log, self._config.batch_events):
            if end > position:
                break
            batch = self._timeline.advance(first, end)
            for arm in self._arms.values():
                if isinstance(arm, FreshPopularity):
                    arm.ranks(batch)
            self._learn(batch)
            for arm in self._arms.values():
                if isinstance(arm, System):
                    arm.relearn(batch)
                else:
                    arm.learn(batch)
                if isinstance(arm, RefittedArm) and end == last_round:
                    arm.round_held(self._timeline)
            self._progress("reading again what was answered before", end)
        for name, arm in self._arms.items():
            if isinstance(arm, Retrained):
                arm.resume(state.fits, state.train_seconds[name])
            elif isinstance(arm, RefittedArm):
                arm.train_seconds = state.train_seconds[name]

    def _save(self) -> None:
        state = self._saved.state
        for arm in self._arms.values():
            if isinstance(arm, System):
                arm.keep()
        state.train_seconds = {name: arm.train_seconds for name, arm in self._arms.items()}
        state.fits = next((arm.fits for arm in self._arms.values() if isinstance(arm, Retrained)), 0)
        self._saved.save()

    def _close(self) -> None:
        self._timeline.close()
        for arm in self._arms.values():
            if isinstance(arm, System):
                arm.close()
