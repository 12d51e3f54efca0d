"""Reports on an updater to the monitor and the metrics, after each of its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Collection

from ops.metrics import UpdaterMetrics
from ops.monitor.signals import UpdaterSignals
from ops.monitor.windows import WindowConfig, WindowCounter
from stream.clients.connection import KafkaConnection
from stream.updater.partition import PartitionTask
from stream.wire.windows_topic import WindowSender, worker_name

__all__ = ["Reporting"]

_GAUGES_SECONDS = 5.0


class Reporting:
    """`signals` count events into windows of event time. `report` sends the windows and sets the gauges."""

    def __init__(self, config: WindowConfig, connection: KafkaConnection, topic: str, metrics: UpdaterMetrics) -> None:
        self._metrics = metrics
        self.signals = UpdaterSignals(WindowCounter(worker_name("updater"), config), metrics)
        self._sender = WindowSender(connection, topic)
        self._gauges_due = 0.0

    def report(self, tasks: Collection[PartitionTask], last: bool = False) -> None:
        metrics = self._metrics
        self.signals.flush()
        self._sender.send(self.signals.windows, now=last)
        running = [task for task in tasks if task.state == "running"]
        metrics.restoring_partitions.set(len(tasks) - len(running))
        newest_ms = [task.newest_ms for task in running if task.newest_ms]
        if newest_ms:
            metrics.stream_watermark_timestamp["interactions"].set(min(newest_ms) / 1000)
        now = time.monotonic()
        if now >= self._gauges_due:
            self._gauges_due = now + _GAUGES_SECONDS
            metrics.state_bytes["histories"].set(sum(task.store.bytes_on_disk() for task in running))
            pending = sum(task.store.pending_compaction_bytes() for task in running)
            metrics.state_pending_compaction_bytes["histories"].set(pending)

    def close(self) -> None:
        self._sender.close()
