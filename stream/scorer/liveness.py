"""Whether the scorer makes progress, for its supervisor and its metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ops.metrics import ScorerMetrics

if TYPE_CHECKING:
    import faust

__all__ = ["Liveness"]

log = logging.getLogger(__name__)

_ASK_SECONDS = 0.5
_ANSWER_SECONDS = 10.0


class Liveness:
    """Progress is a finished batch, or an answer of the brokers that no record of `topic` waits. `idle` returns True
    when this process works on nothing."""

    def __init__(self, app: faust.App, topic: str, metrics: ScorerMetrics, idle: Callable[[], bool]) -> None:
        self._app, self._topic, self._metrics, self._idle = app, topic, metrics, idle
        self._progressed = time.monotonic()

    @property
    def stalled_seconds(self) -> float:
        """Time since the last progress."""
        return time.monotonic() - self._progressed

    def begin(self) -> None:
        """The wait for progress begins now."""
        self._progressed = time.monotonic()

    def progress(self) -> None:
        self._progressed = time.monotonic()
        self._metrics.progress_timestamp.set_to_current_time()

    async def watch(self) -> None:
        """Count it as progress whenever no record waits; runs until it is cancelled."""
        while True:
            await asyncio.sleep(_ASK_SECONDS)
            before = self._progressed
            try:
                idle = await asyncio.wait_for(self._nothing_waits(), _ANSWER_SECONDS)
            except Exception as error:  # without an answer there is no progress, but the watch goes on  # noqa: BLE001
                log.debug("the brokers do not say what waits: %s", error)
                continue
            if idle and before == self._progressed:
                self.progress()

    async def _nothing_waits(self) -> bool:
        if not self._idle():
            return False
        consumer = self._app.consumer
        owned = [tp for tp in consumer.assignment() if tp.topic == self._topic]
        ends = await consumer.highwaters(*owned) if owned else {}
        positions = {tp: await consumer.position(tp) for tp in owned}
        return all(position is not None and position >= ends[tp] for tp, position in positions.items())
