"""What a user was shown last, and why: found on demand in the topics themselves, for the status page."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition

from ops.connection import KafkaConnection
from state import codec
from stream.records import Recommendation
from stream.routing import home_of
from stream.topics import TopicPlan

__all__ = ["ListLookup"]

_CHUNK = 2_000  # records read at a time, from the newest on
_FARTHEST = 200_000  # records back; a user who came before that is not found
_NEWEST = 10  # interactions told

_recommendation = msgspec.json.Decoder(Recommendation)


class ListLookup:
    """Call it with a user; any thread may, one at a time. Costs nothing between calls."""

    def __init__(self, connection: KafkaConnection, plan: TopicPlan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._consumer = KafkaConsumer(
            **connection.kafka_python(),
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            max_poll_records=_CHUNK,
        )

    def __call__(self, user: str) -> Mapping[str, Any] | None:
        key = user.encode()
        number = home_of(key, self._plan.partitions)
        with self._lock:
            shown = self._last(TopicPartition(self._plan.recommendations, number), key)
            history = self._last(TopicPartition(self._plan.histories, number), key)
        if shown is None:
            return None
        found = _recommendation.decode(shown)
        answer: dict[str, Any] = {
            "model": found.model or "none",
            "variant": found.variant,
            "answers": "a new event" if found.reason == "event" else "a new model",
            "as of": _when(found.as_of),
            "published": _when(found.published),
        }
        if history is not None:
            known = codec.decode(history)
            answer["newest interactions"] = list(known.items[:_NEWEST])
            answer["interactions known"] = len(known.items)
        answer["items"] = [{"item": scored.item, "score": scored.score, "why": _why(found)} for scored in found.items]
        return answer

    def _last(self, tp: TopicPartition, key: bytes) -> bytes | None:
        """The newest value of `key`, None when it was erased or is too far back. Reads backwards in chunks."""
        consumer = self._consumer
        consumer.assign([tp])
        first = consumer.beginning_offsets([tp])[tp]
        end = consumer.end_offsets([tp])[tp]
        first = max(first, end - _FARTHEST)
        while end > first:
            start = max(end - _CHUNK, first)
            found, value = False, None
            consumer.seek(tp, start)
            while consumer.position(tp) < end:
                records = consumer.poll(timeout_ms=1000).get(tp, [])
                if not records:
                    break
                for record in records:
                    if record.key == key and record.offset < end:
                        found, value = True, record.value
            if found:
                return value
            end = start
        return None

    def close(self) -> None:
        with self._lock:
            self._consumer.close(timeout_ms=2000)


def _why(found: Recommendation) -> str:
    return "ranked from the whole history" if found.model else "popular at that moment"


def _when(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC" if time_ms else "never"
