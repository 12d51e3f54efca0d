"""Collects the signals of events at low cost: each event only appends to lists, which are counted once per batch.

An updater notes what arrives, a scorer what it recommends; both keep the drift monitor's windows and the matching
metrics. Call `flush` after every batch, and send what `WindowCounter.take` returns to `monitor-windows` every few
seconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from ops.metrics import ScorerMetrics, UpdaterMetrics
from ops.monitor.bins import (
    EVENT_TYPES,
    HISTORY_LENGTHS,
    INTER_ARRIVALS,
    ItemBins,
    event_type_bin,
    history_length_bins,
    inter_arrival_bins,
)
from ops.monitor.quality import PairedCounts
from ops.monitor.windows import WindowCounter

__all__ = ["ScoreBins", "ScorerSignals", "UpdaterSignals", "paired_counts"]

FRESH_SECONDS = 5.0  # the bound of the freshness objective

SHOWN_BINS = 4096  # by hash: far more than the items that most lists are spread over

_DAY_MS = 86_400_000


class UpdaterSignals:
    """New users, history lengths, pace, kinds of events, and the soundness of the feed."""

    def __init__(self, windows: WindowCounter, metrics: UpdaterMetrics) -> None:
        self.windows, self._metrics = windows, metrics
        self._event_types: dict[str, int] = {}
        self._clear()

    def _clear(self) -> None:
        self._times: list[int] = []
        self._befores_ms: list[int] = []  # the time before each, 0 for a new user's first
        self._later: list[int] = []  # places of events that are not the first of their user in a batch
        self._types: list[str] = []
        self._users: list[tuple[bytes, int, int]] = []
        self._length_times: list[int] = []
        self._lengths: list[int] = []

    def user(
        self,
        user: bytes,
        before_ms: int,
        times_ms: Sequence[int],
        items_after: int,
        event_types: Sequence[str] = (),
    ) -> None:
        """Note a batch's changes of one user's history: the times of the applied events in the order in which they were
        applied, the time of the newest interaction before them (0: a new user), and the history's length after them."""
        if len(times_ms) == 1:  # nearly always
            (newest_ms,) = times_ms
            self._times.append(newest_ms)
            self._befores_ms.append(before_ms)
            self._types += event_types
        elif times_ms:
            newest_ms = times_ms[-1]
            self._times += times_ms
            self._befores_ms.append(before_ms)
            self._befores_ms += times_ms[:-1]
            self._later += range(len(self._times) - len(times_ms) + 1, len(self._times))
            self._types += event_types
        else:
            return
        self._length_times.append(newest_ms)
        self._lengths.append(items_after)
        self._users.append((user, newest_ms, len(times_ms)))

    def feed(
        self, newest_ms: int, *, duplicates: int = 0, late: int = 0, dead_letters: int = 0, misdated: int = 0
    ) -> None:
        """Note the numbers of a batch's other records. `misdated`: dead letters because of an impossible time."""
        windows = self.windows
        for name, count in (
            ("events", duplicates + late),
            ("duplicates", duplicates),
            ("dead_letters", dead_letters),
            ("misdated", misdated),
        ):
            if count:
                windows.total(name, max(newest_ms, windows.newest_ms), count)

    def flush(self) -> None:
        """Count what was noted since the last flush."""
        windows, metrics = self.windows, self._metrics
        if not self._times:
            return
        times = np.array(self._times, dtype=np.int64)
        befores = np.array(self._befores_ms, dtype=np.int64)
        behind = windows.newest_ms - _DAY_MS
        new_user = befores == 0
        new_user[self._later] = False
        known = befores > 0
        gaps_ms = times[known] - befores[known]
        windows.add("new_user_rate", times, new_user, 2)
        windows.add("history_length", self._length_times, history_length_bins(self._lengths), HISTORY_LENGTHS)
        windows.add("inter_arrival", times[known], inter_arrival_bins(gaps_ms), INTER_ARRIVALS)
        if len(self._types) == len(times):
            windows.add("event_type", times, self._event_bins(), EVENT_TYPES)
        windows.add_total("events", times)
        backward = int((times < behind).sum())
        if backward:
            windows.total("backward", windows.newest_ms, backward)
        self._note_users()
        new_users = int(new_user.sum())
        metrics.user_events["new"].inc(new_users)
        metrics.user_events["known"].inc(len(times) - new_users)
        metrics.history_items.observe_many(self._lengths)
        metrics.inter_arrival.observe_many(np.abs(gaps_ms) / 1000)
        self._clear()

    def _note_users(self) -> None:
        window_ms = self.windows.config.window_ms
        by_window: dict[int, dict[bytes, int]] = {}
        for user, newest_ms, events in self._users:
            counts = by_window.setdefault(newest_ms // window_ms, {})
            counts[user] = counts.get(user, 0) + events
        for number, counts in by_window.items():
            self.windows.users(number * window_ms, counts)

    def _event_bins(self) -> list[int]:
        known = self._event_types
        if len(known) > 1024:  # so many names are a mistake of a producer, and need not be kept
            known.clear()
        for event in set(self._types) - known.keys():
            known[event] = event_type_bin(event)
        return [known[event] for event in self._types]


@dataclass(frozen=True)
class ScoreBins:
    """Inner edges of the deciles of a model's scores. The epoch of such counts is the model's version."""

    top1: tuple[float, ...] = field(default=tuple(np.linspace(0.1, 0.9, 9).tolist()))
    margin: tuple[float, ...] = field(default=tuple(np.linspace(0.05, 0.45, 9).tolist()))


class ScorerSignals:
    """The items of events, the scores of lists, and the outcomes of lists beside those of popularity and of the
    previous model.

    `follow` says what the counts refer to from now on: the live model's version, its item bins and the bins of its
    scores. Before the first `follow`, items and scores are not counted. The class has more than 15 attributes because
    every signal has a list of its own, to which events append.
    """

    def __init__(self, windows: WindowCounter, metrics: ScorerMetrics) -> None:
        self.windows, self._metrics = windows, metrics
        self._bins: ItemBins | None = None
        self._items_epoch = self._model_epoch = ""
        self._scores: ScoreBins | None = None
        self._clear()

    def _clear(self) -> None:
        self._item_times: list[int] = []
        self._items: list[int] = []
        self._unknown: list[int] = []
        self._first_met: list[tuple[int, int]] = []  # event time, hash of the item
        self._score_times: list[int] = []
        self._top1: list[float] = []
        self._margin: list[float] = []
        self._delivered_times: list[int] = []
        self._late_times: list[int] = []
        self._outcome_times: list[int] = []
        self._against_popularity: list[int] = []
        self._previous_times: list[int] = []
        self._against_previous: list[int] = []
        self._canary: dict[str, tuple[list[int], list[int]]] = {}
        self._shown: dict[str, tuple[list[int], list[int]]] = {}

    def follow(self, model: str, items: ItemBins | None, items_epoch: str, scores: ScoreBins | None = None) -> None:
        """A new model is live. `items_epoch` names the item bins; it stays the same when a model keeps its parent's
        bins. Signals without bins are not counted, because counts in bins of this worker's own could not be added to
        those of other workers."""
        self.flush()
        self._model_epoch, self._bins, self._items_epoch, self._scores = model, items, items_epoch, scores

    def event(self, item: str, time_ms: int, in_vocabulary: bool, first_met: bool = False) -> None:
        """Note an event's item. `first_met`: this worker knows no earlier event with this item."""
        if first_met:
            self._first_met.append((time_ms, zlib.crc32(item.encode())))
        if self._bins is None:
            return
        self._item_times.append(time_ms)
        self._items.append(self._bins.items.get(item, self._bins.size - 1))
        self._unknown.append(0 if in_vocabulary else 1)

    def ranked(self, time_ms: int, best: float, last: float) -> None:
        """Note the best and the last score of a list by the live model. `time_ms`: the history's newest event."""
        if self._scores is None:
            return
        self._score_times.append(time_ms)
        self._top1.append(best)
        self._margin.append(best - last)

    def shown(self, time_ms: int, model: str, items: Sequence[str]) -> None:
        """Note the items of a list that `model` made. `time_ms`: the history's newest event."""
        times, bins = self._shown.setdefault(model, ([], []))
        times += [time_ms] * len(items)
        bins += [_shown_bin(item) for item in items]

    def delivered(self, time_ms: int, seconds: float) -> None:
        """A list reached its topic `seconds` after the arrival of its event."""
        self._delivered_times.append(time_ms)
        if seconds > FRESH_SECONDS:
            self._late_times.append(time_ms)

    def nonfinite(self, time_ms: int, users: int) -> None:
        """The live model gave NaN or infinite scores for this many users."""
        self.windows.total(f"nonfinite {self._model_epoch}", time_ms, users)

    def outcome(self, time_ms: int, hit: bool, popularity_hit: bool, previous_hit: bool | None = None) -> None:
        """An event answered by a list of the live model, by popularity, and perhaps by the previous model."""
        self._outcome_times.append(time_ms)
        self._against_popularity.append(2 * hit + popularity_hit)
        if previous_hit is not None:
            self._previous_times.append(time_ms)
            self._against_previous.append(2 * hit + previous_hit)

    def canary(self, time_ms: int, version: str, hit: bool, live_hit: bool) -> None:
        """An event answered by a list of the canary of this version, and by the one that live would have shown."""
        times, pairs = self._canary.setdefault(version, ([], []))
        times.append(time_ms)
        pairs.append(2 * hit + live_hit)

    def flush(self) -> None:
        """Count what was noted since the last flush."""
        windows = self.windows
        if self._item_times:
            assert self._bins is not None  # without bins, `event` notes nothing
            windows.add("item_popularity", self._item_times, self._items, self._bins.size, self._items_epoch)
            windows.add("unknown_item_rate", self._item_times, self._unknown, 2)
        if self._score_times:
            assert self._scores is not None  # without bins, `ranked` notes nothing
            for signal, values, edges in (
                ("score_top1", self._top1, self._scores.top1),
                ("score_margin", self._margin, self._scores.margin),
            ):
                bins = np.searchsorted(edges, values, side="right")
                windows.add(signal, self._score_times, bins.tolist(), len(edges) + 1, self._model_epoch)
        for time_ms, item in self._first_met:
            windows.first_met(time_ms, (item,))
        windows.add_total("lists", self._delivered_times)
        windows.add_total("late_lists", self._late_times)
        windows.add("against_popularity", self._outcome_times, self._against_popularity, 4, self._model_epoch)
        windows.add("against_previous", self._previous_times, self._against_previous, 4, self._model_epoch)
        for version, (times, pairs) in self._canary.items():
            windows.add("against_live", times, pairs, 4, version)
        for model, (times, shown) in self._shown.items():
            windows.add("shown", times, shown, SHOWN_BINS, model)
        self._clear()


@lru_cache(maxsize=100_000)
def _shown_bin(item: str) -> int:
    return zlib.crc32(item.encode()) % SHOWN_BINS


def paired_counts(table: Sequence[int]) -> PairedCounts:
    """The counts of a paired signal, such as "against_popularity", from its four bins.

    >>> paired_counts([900, 20, 60, 20])
    PairedCounts(both=20, first=60, second=20, neither=900)
    """
    neither, second, first, both = (int(count) for count in table)
    return PairedCounts(both, first, second, neither)
