"""Feeds the closed loop from `monitor-windows`, and polls the lag of the other workers.

The loop's knowledge of the stream is read again from the topic at every start; its decisions are in a small file
(`stream.trainer.loop_file`).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from ops.local.lag import LagPoller
from ops.metrics import TrainerMetrics
from ops.monitor.closed_loop import ClosedLoop
from stream.clients.admin import admin_client
from stream.clients.connection import KafkaConnection
from stream.wire.windows_topic import WindowReader

__all__ = ["WindowFeed", "poll_lag"]


class WindowFeed:
    """Reads the topic for `loop`: `restore` reads all of it, `poll` the records that come later."""

    def __init__(self, loop: ClosedLoop, connection: KafkaConnection, topic: str) -> None:
        self._loop, self._reader = loop, WindowReader(connection, topic)

    def restore(self) -> None:
        self._loop.restore(self._reader.catch_up())

    def poll(self) -> None:
        for value in self._reader.poll():
            self._loop.add(value)

    def close(self) -> None:
        self._reader.close()


def poll_lag(
    connection: KafkaConnection,
    groups: Mapping[str, Mapping[str, int]],
    metrics: TrainerMetrics,
    stop: threading.Event,
    every_seconds: float = 15.0,
) -> threading.Thread:
    """Start to poll the lag of {group: {topic: partitions}} in a thread with its own admin client."""
    poller = LagPoller(admin_client(connection), groups, metrics)
    thread = threading.Thread(target=poller.run, args=(stop, every_seconds), name="lag", daemon=True)
    thread.start()
    return thread
