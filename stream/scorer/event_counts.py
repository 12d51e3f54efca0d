"""Counts of the events of this scorer's partitions, for the reranker: demand for items, and which item follows which.

A refresh brings the events that are new and the history that holds them. Every event is counted, and so are its pairs
with the items that the user had met before the time of the event. An event that arrives late is not paired with items
that were met after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from model.ranker import Hidden
from model.rerank.asked import Asked
from model.rerank.counts import StreamCounts
from model.rerank.pairs import counted_events
from state.codec import Columns
from state.traces import item_hash, trace_columns
from stream.scorer.requests import Request
from stream.wire.meaning import EventKinds, Meaning

__all__ = ["EventCounts"]

_PLACES = 64  # newest items of a history that the reranker looks at; older items are hidden from the list, too


class EventCounts:
    """Single-threaded. `counts` has a column for every item of a serving model and of every history seen so far."""

    def __init__(self, kinds: EventKinds, counts: StreamCounts | None = None) -> None:
        self.counts = counts or StreamCounts()
        self._kinds = kinds
        self._hashed: dict[int, tuple[int, ...]] = {}  # columns by `item_hash`
        self._hashed_columns = 0  # number of columns that `_hashed` covers

    # -- as the catalogue that may be listed ---------------------------------------------------------------------------

    @property
    def ids(self) -> Sequence[str]:
        """Item of every column; it only grows."""
        return self.counts.ids

    def __len__(self) -> int:
        return len(self.counts)

    def columns(self, items: Iterable[str]) -> np.ndarray:
        """int64 columns of items, -1 where there is none."""
        return self.counts.columns(items)

    # -- events --------------------------------------------------------------------------------------------------------

    def count(self, requests: Iterable[Request]) -> None:
        """Count what is new in these requests. Every item of their histories has a column afterwards: columns come in
        the order of the requests, so that counting them again ends in the same counts."""
        kinds = self._kinds
        rows: list[tuple[np.ndarray, np.ndarray]] = []
        users: list[int] = []
        items: list[str] = []
        times_ms: list[int] = []
        weights: list[float] = []
        for number, request in enumerate(requests):
            new = sorted(
                (event for event in request.new if kinds.positive(event.kind, event.weight)), key=lambda e: e.time_ms
            )
            if not new:
                self._known(request.history.items)
                continue
            history = request.history
            columns, met_ms = self._positive(history, new[-1].time_ms)
            for event in new:
                first = int(np.searchsorted(-met_ms, -event.time_ms, side="right"))  # first of the earlier items
                rows.append((columns[first : first + _PLACES], met_ms[first : first + _PLACES]))
                users.append(number)
                items.append(event.item)
                times_ms.append(event.time_ms)
                weights.append(kinds[event.kind].strength)
        if not items:
            return
        now_ms = np.array(times_ms, dtype=np.int64)
        nothing = np.empty(0, dtype=np.int64)
        before = _asked(rows, now_ms, Hidden(nothing, nothing), np.array([len(row) for row, _ in rows]))
        self.counts.add(
            counted_events(before, np.array(users), self.counts.known(items), np.array(weights, np.float32))
        )

    def _positive(self, history: Columns, now_ms: int) -> tuple[np.ndarray, np.ndarray]:
        """(columns, times) of the interactions of a history that speak for their items, newest first."""
        columns = self._known(history.items)
        times_ms = np.frombuffer(history.times_ms, dtype="<i8")
        if self._kinds.plain:
            kept = np.frombuffer(history.strengths, dtype="<f4") > 0
        else:
            kept = self._kinds.meaning(history, now_ms).strengths > 0
        return (columns, times_ms) if kept.all() else (columns[kept], times_ms[kept])

    def _known(self, items: Sequence[str]) -> np.ndarray:
        columns = self.counts.columns(items)
        return self.counts.known(items) if (columns < 0).any() else columns

    # -- users ---------------------------------------------------------------------------------------------------------

    def asked(
        self,
        requests: Sequence[Request],
        now_ms: np.ndarray,
        hidden_from: Callable[[bytes], Iterable[str]] = lambda user: (),
    ) -> Asked:
        """The users of requests, each at `now_ms` int64 [B] of event time. `hidden_from` names more items that a user
        may not be shown."""
        rows: list[tuple[np.ndarray, np.ndarray]] = []
        hidden: list[np.ndarray] = []
        meanings: list[Meaning | None] = []
        for request, at in zip(requests, now_ms.tolist(), strict=True):
            history = request.history
            columns, times_ms = self._known(history.items), np.frombuffer(history.times_ms, dtype="<i8")
            if self._kinds.plain:
                kept = np.frombuffer(history.strengths, dtype="<f4") > 0
                hidden.append(
                    np.concatenate([columns, self._left(trace_columns(history.traces)[1])])
                    if history.traces
                    else columns
                )
                meanings.append(None)
            else:
                meaning = self._kinds.meaning(history, at)
                kept = meaning.strengths > 0
                hidden.append(np.concatenate([columns[meaning.hidden], self._left(meaning.hidden_hashes)]))
                meanings.append(
                    meaning._replace(times=meaning.times[kept][:_PLACES], gap_ms=meaning.gap_ms[kept][:_PLACES])
                )
            if more := list(hidden_from(request.user)):
                barred = self.counts.columns(more)
                hidden[-1] = np.concatenate([hidden[-1], barred[barred >= 0]])
            rows.append((columns, times_ms) if kept.all() else (columns[kept], times_ms[kept]))
        rows = [(columns[:_PLACES], times_ms[:_PLACES]) for columns, times_ms in rows]
        lengths = np.array([len(row) for row, _ in rows], dtype=np.int64)
        number = np.repeat(np.arange(len(rows)), [len(row) for row in hidden])
        nothing = np.empty(0, dtype=np.int64)
        every = Hidden(number, np.concatenate([nothing, *hidden]))
        return _asked(rows, now_ms, every, lengths, None if self._kinds.plain else meanings)

    def _left(self, hashes: np.ndarray) -> np.ndarray:
        """int64 columns of the items with these hashes; a hash without a column is left out."""
        if not len(hashes):
            return np.empty(0, dtype=np.int64)
        ids = self.counts.ids
        for column in range(self._hashed_columns, len(ids)):
            found = item_hash(ids[column])
            self._hashed[found] = (*self._hashed.get(found, ()), column)
        self._hashed_columns = len(ids)
        return np.array([column for value in hashes.tolist() for column in self._hashed.get(value, ())], dtype=np.int64)


def _asked(
    rows: Sequence[tuple[np.ndarray, np.ndarray]],
    now_ms: np.ndarray,
    hidden: Hidden,
    lengths: np.ndarray,
    meanings: Sequence[Meaning | None] | None = None,
) -> Asked:
    """Rows of (columns, times) padded to a rectangle."""
    width = max((len(columns) for columns, _ in rows), default=0) or 1
    columns = np.full((len(rows), width), -1, dtype=np.int64)
    times_ms = np.zeros((len(rows), width), dtype=np.int64)
    times = gaps_ms = None
    if meanings is not None:
        times = np.zeros((len(rows), width), dtype=np.float32)
        gaps_ms = np.full((len(rows), width), np.nan, dtype=np.float32)
    for row, (found, met_ms) in enumerate(rows):
        columns[row, : len(found)], times_ms[row, : len(found)] = found, met_ms
        meaning = None if meanings is None else meanings[row]
        if meaning is not None and times is not None and gaps_ms is not None:
            times[row, : len(found)], gaps_ms[row, : len(found)] = meaning.times, meaning.gap_ms
    return Asked(columns, times_ms, lengths, now_ms, hidden, times, gaps_ms)
