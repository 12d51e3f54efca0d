"""Watches the pilot, as one part of the trainer: exports its figures, and stops a variant that does harm.

The trainer has nothing else to do with pilots. It watches them because exactly one trainer runs at any time. A stop is
a record on the topic; a trainer that is killed before it writes the record makes the same decision after its restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from kafka.errors import KafkaError

from ops.metrics import TrainerMetrics
from stream.clients.connection import KafkaConnection
from stream.pilots.pilot import Stop
from stream.pilots.report import PilotReport, report
from stream.pilots.topic import PilotReader, write_stop

__all__ = ["PilotGuard", "show"]

log = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0

_VERDICTS = {"worse": -1, "better": 1}


class PilotGuard:
    """All methods are called on the owner's thread."""

    def __init__(
        self, connection: KafkaConnection, topic: str, metrics: TrainerMetrics, clock: Callable[[], float] = time.time
    ) -> None:
        self._connection, self._topic, self._metrics, self._clock = connection, topic, metrics, clock
        self._reader = PilotReader(connection, topic)
        self._due, self._changed = 0.0, True

    def turn(self) -> None:
        """Call often."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _EVERY_SECONDS
        self._changed |= self._reader.poll()
        if self._changed:
            self._changed = not self._judge()

    def _judge(self) -> bool:
        """Judge the pilot; False when this must be repeated."""
        pilots = self._reader.pilots
        pilot = pilots.current
        if pilot is None:
            show(None, self._metrics)
            return True
        found = report(pilot, pilots.counts(pilot.name))
        show(found, self._metrics)
        for arm in found.variants:
            if arm.stopped or not arm.harm or pilot.ended:
                continue
            log.error("variant %s of pilot %s is stopped: %s", arm.name, pilot.name, arm.harm)
            try:
                stop = Stop(arm.harm, int(self._clock() * 1000))
                write_stop(self._connection, self._topic, pilot.name, arm.name, stop)
            except KafkaError as error:
                log.warning("variant %s is stopped later: %s: %s", arm.name, type(error).__name__, error)
                return False
            self._metrics.pilot_stops.inc()
        return True

    def close(self) -> None:
        self._reader.close()


def show(found: PilotReport | None, metrics: TrainerMetrics) -> None:
    """Set the gauges to the figures of a pilot; None clears them."""
    gauges = (
        metrics.pilot_share,
        metrics.pilot_split_probability,
        metrics.pilot_users,
        metrics.pilot_hit_ratio,
        metrics.pilot_ndcg,
        metrics.pilot_difference,
        metrics.pilot_verdict,
    )
    for gauge in gauges:
        gauge.clear()
    if found is None:
        return
    name = found.pilot.name
    metrics.pilot_share.labels(name).set(found.pilot.share if found.pilot.running else 0)
    if found.ratio is not None:
        metrics.pilot_split_probability.labels(name).set(found.ratio.p)
    for arm in found.arms:
        metrics.pilot_users.labels(name, arm.name).set(arm.users)
        hit_rate, ndcg = arm.rates["hit rate"], arm.rates["NDCG"]
        if hit_rate is not None and ndcg is not None:
            metrics.pilot_hit_ratio.labels(name, arm.name).set(hit_rate)
            metrics.pilot_ndcg.labels(name, arm.name).set(ndcg)
        interval = arm.differences.get("hit rate")
        if interval is not None:
            for bound in ("low", "mean", "high"):
                metrics.pilot_difference.labels(name, arm.name, bound).set(getattr(interval, bound))
        if arm.verdict:
            metrics.pilot_verdict.labels(name, arm.name).set(_VERDICTS.get(arm.verdict, 0))
