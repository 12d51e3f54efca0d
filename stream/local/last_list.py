"""The last list of a user and the reasons for its items, read from the topics on demand, for the status page."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from kafka import TopicPartition

from state import codec
from state.history import History
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.registry.slots import read_slots
from stream.wire.partitioning import home_of
from stream.wire.records import Recommendation
from stream.wire.topics import TopicPlan

if TYPE_CHECKING:
    from model.recommend import Recommender

__all__ = ["ListLookup"]

log = logging.getLogger(__name__)

_CHUNK = 2_000  # records read at a time, from the newest on
_FARTHEST = 200_000  # records before the end; a user with earlier records only is not found
_NEWEST = 10  # interactions shown

_recommendation = msgspec.json.Decoder(Recommendation)


class ListLookup:
    """Call it with a user id, from any thread; calls wait for each other. It does nothing between calls."""

    def __init__(self, connection: KafkaConnection, plan: TopicPlan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._reader = TopicReader(connection, poll_records=_CHUNK)
        self._connection = connection
        self._model: Recommender | None = None  # the last model that was loaded for reasons

    def __call__(self, user: str) -> Mapping[str, Any] | None:
        key = user.encode()
        number = home_of(key, self._plan.partitions)
        with self._lock:
            shown = self._last(TopicPartition(self._plan.recommendations, number), key)
            stored = self._last(TopicPartition(self._plan.histories, number), key)
            if shown is None:
                return None
            found = _recommendation.decode(shown)
            history = None if stored is None else codec.decode(stored)
            reasons = self._reasons(found, history)
        answer: dict[str, Any] = {
            "model": found.model or "none",
            "variant": found.variant,
            "answers": "a new event" if found.reason == "event" else "a new model",
            "as of": _when(found.as_of),
            "published": _when(found.published),
        }
        if history is not None:
            answer["newest interactions"] = list(history.items[:_NEWEST])
            answer["interactions known"] = len(history.items)
        answer["items"] = [
            {"item": scored.item, "score": scored.score, "why": why}
            for scored, why in zip(found.items, reasons, strict=True)
        ]
        return answer

    def _reasons(self, found: Recommendation, history: History | None) -> list[str]:
        """The reason for each item of a list."""
        if not found.model:
            return ["popular at that moment"] * len(found.items)
        plain = ["ranked from the whole history"] * len(found.items)
        if history is None:
            return plain
        try:
            return self._told_by_the_model(found, history)
        except Exception as error:  # the list is shown without reasons  # noqa: BLE001
            log.warning("model %s does not say why: %s", found.model, error)
            return plain

    def _told_by_the_model(self, found: Recommendation, history: History) -> list[str]:
        # Imported here, because the import takes seconds and is seldom needed.
        from model.batch import Histories
        from model.explain import because

        model = self._load(found.model)
        then = sum(time_ms > found.as_of for time_ms in history.times_ms)  # events after the list do not explain it
        known = model.items.columns(history.items[then:]) >= 0
        entries = [entry for entry, is_known in zip(list(history.entries())[then:], known, strict=True) if is_known]
        user = [e.item for e in entries], [e.time_ms for e in entries], [e.strength for e in entries]
        columns = model.items.columns([scored.item for scored in found.items])
        if (columns < 0).any():
            raise LookupError("it does not know the items it listed")
        places = because(model, Histories.pack(model.items, [user]), np.asarray(columns))
        return [
            f"above all because of {entries[place].item}" if place >= 0 else "ranked from the whole history"
            for place in places.tolist()
        ]

    def _load(self, version: str) -> Recommender:
        import torch

        from model.artifact import load_recommender

        if self._model is None or self._model.version != version:
            slots = read_slots(self._connection, self._plan.models).values()
            announced = next((slot for slot in slots if slot.version == version), None)
            if announced is None:
                raise LookupError("it is in no slot any more")
            self._model = load_recommender(announced.address, announced.sha256, torch.device("cpu"))
        return self._model

    def _last(self, tp: TopicPartition, key: bytes) -> bytes | None:
        """The newest value of `key`, None when it was erased or is too far back. Reads backwards in chunks."""
        reader = self._reader
        reader.assign([tp])
        first, end = reader.beginnings([tp])[tp], reader.ends([tp])[tp]
        first = max(first, end - _FARTHEST)
        while end > first:
            start = max(end - _CHUNK, first)
            found, value = False, None
            reader.seek(tp, start)
            while reader.position(tp) < end:
                records = reader.poll(1.0).get(tp, [])
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
            self._reader.close()


def _when(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC" if time_ms else "never"
