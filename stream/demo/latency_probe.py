"""Measures Freshet as a consumer sees it: the time from an event to its list, and how lists change."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence

import msgspec

from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.wire.records import Recommendation

__all__ = ["Observer"]

_recommendation = msgspec.json.Decoder(Recommendation)


class Observer:
    """Reads `recommendations` from now on, in a thread of its own, and matches each list with the events it answers.

    An event is answered by the first list of its user with `as_of` at or after its timestamp. Call `sent` when an event
    is passed to the producer. Latencies are seconds from that call to the arrival of the list in this process.
    """

    def __init__(self, connection: KafkaConnection, topic: str, watch: int = 3) -> None:
        self.latencies: list[float] = []
        self.lists = 0
        self.tombstones = 0
        self.variants: dict[str, int] = defaultdict(int)
        self.models: list[str] = []  # versions in order of first appearance
        self.watched: dict[str, list[Recommendation]] = {}  # last two lists of a few users
        self._watch = watch
        self._pending: dict[str, deque[tuple[int, float]]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._reader = TopicReader(connection, wait_seconds=0.05)
        self._reader.assign(self._reader.partitions(topic))
        self._reader.to_end()  # the position must be set before the first event is sent
        self._thread = threading.Thread(target=self._read, name="observer", daemon=True)
        self._thread.start()

    def sent(self, user: str, timestamp_ms: int) -> None:
        with self._lock:
            self._pending[user].append((timestamp_ms, time.monotonic()))

    def _read(self) -> None:
        while not self._stop.is_set():
            for records in self._reader.poll(0.1).values():
                now = time.monotonic()
                for record in records:
                    if record.value is None:
                        self.tombstones += 1
                    else:
                        self._take(_recommendation.decode(record.value), now)

    def _take(self, recommendation: Recommendation, now: float) -> None:
        self.lists += 1
        self.variants[recommendation.variant] += 1
        if recommendation.model and recommendation.model not in self.models:
            self.models.append(recommendation.model)
        with self._lock:
            pending = self._pending[recommendation.user]
            while pending and pending[0][0] <= recommendation.as_of:
                self.latencies.append(now - pending.popleft()[1])
        if recommendation.user in self.watched or len(self.watched) < self._watch:
            self.watched[recommendation.user] = [*self.watched.get(recommendation.user, [])[-1:], recommendation]

    @property
    def unanswered(self) -> int:
        with self._lock:
            return sum(map(len, self._pending.values()))

    def quantiles(self, probabilities: Sequence[float], last: int | None = None) -> list[float]:
        """Latency quantiles in seconds, over the `last` answered events or all; NaN when there is none."""
        latencies = sorted(self.latencies[-last:] if last else self.latencies)
        if not latencies:
            return [float("nan")] * len(probabilities)
        return [latencies[min(int(p * len(latencies)), len(latencies) - 1)] for p in probabilities]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._reader.close()
