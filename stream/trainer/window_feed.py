"""The trainer's eye on the stream: the closed loop, fed from `monitor-windows`, its decisions kept over restarts.

What the loop knows of the stream is read again from the topic; what the closed loop decided is a small file.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from ops.local.lag import LagPoller
from ops.metrics import TrainerMetrics
from ops.monitor.closed_loop import ClosedLoop, ClosedLoopConfig
from ops.monitor.loop_state import LoopState
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.wire.windows_topic import WindowReader

__all__ = ["WindowFeed", "poll_lag"]

log = logging.getLogger(__name__)


class WindowFeed:
    """`loop` judges and decides; call `poll` often, and `save` after every turn."""

    def __init__(
        self,
        config: ClosedLoopConfig,
        connection: KafkaConnection,
        topic: str,
        metrics: TrainerMetrics,
        folder: Path,
        clock: Callable[[], float],
    ) -> None:
        self._path = folder / "decisions.json"
        state = self._load()
        self._saved = state.encode()
        self._reader = WindowReader(connection, topic)
        self.loop = ClosedLoop(config, metrics, clock, state)
        self.loop.restore(self._reader.catch_up())

    def _load(self) -> LoopState:
        try:
            state = LoopState.decode(self._path.read_bytes())
        except FileNotFoundError:
            return LoopState()
        except msgspec.DecodeError as error:
            log.error("%s is unreadable, the loop starts afresh: %s", self._path, error)
            return LoopState()
        state.running = False  # a round ends with its process
        return state

    def poll(self) -> None:
        for value in self._reader.poll():
            self.loop.add(value)

    def save(self) -> None:
        """Written aside and renamed, when something changed."""
        encoded = self.loop.decisions.state.encode()
        if encoded == self._saved:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(".partial")
        with aside.open("wb") as file:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self._path)
        self._saved = encoded

    def close(self) -> None:
        self._reader.close()


def poll_lag(
    connection: KafkaConnection,
    groups: Mapping[str, Mapping[str, int]],
    metrics: TrainerMetrics,
    stop: threading.Event,
    every_seconds: float = 15.0,
) -> threading.Thread:
    """Start to poll the lag of {group: {topic: partitions}} in a thread with an admin client of its own."""
    poller = LagPoller(admin_client(connection), groups, metrics)
    thread = threading.Thread(target=poller.run, args=(stop, every_seconds), name="lag", daemon=True)
    thread.start()
    return thread
