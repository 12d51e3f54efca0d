"""Counts of observations in windows of event time, made by many workers and added up by one.

A worker counts each event in the window of its time, and writes each window's running totals to `monitor-windows`. A
later record of the same worker and window replaces the earlier one, so repeated records change nothing. The sum over
workers does not depend on the number of workers.

An *epoch* names what the counts depend on besides the events, such as the model whose scores are counted; counts of
different epochs are never added.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["MergedWindow", "OtherWindowLength", "WindowConfig", "WindowCounter", "WindowMerge", "WindowRecord"]

log = logging.getLogger(__name__)

Table = npt.NDArray[np.int64]
Numbers = Sequence[int] | npt.NDArray[Any]


@dataclass(frozen=True)
class WindowConfig:
    window_ms: int = 15 * 60 * 1000
    """Event time that is judged together."""
    grace_share: float = 1 / 15
    """How long a window waits for late events once newer ones are seen, as a share of the window."""
    patience_ms: int = 15_000
    """How long, by the clock, a window that some worker is far past waits for the other workers."""

    def __post_init__(self) -> None:
        if self.window_ms < 1:
            raise ValueError(f"window_ms must be at least 1, got {self.window_ms}")
        for name in ("grace_share", "patience_ms"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def grace_ms(self) -> int:
        return round(self.grace_share * self.window_ms)


class WindowRecord(msgspec.Struct, array_like=True, frozen=True):
    """One worker's totals of one window, as written to the topic.

    `worker` begins with its kind and "@", and is new with every start of a process.
    """

    worker: str
    start_ms: int
    newest_ms: int  # the newest event time the worker has met
    counts: dict[str, list[int]]  # "signal" or "signal epoch" -> counts by bin
    totals: dict[str, int]  # plain sums
    peaks: dict[str, int]  # largest values, such as the events of the busiest user
    first_met: list[int] = []  # hashes of items that the worker met for the first time; empty in old records
    window_ms: int = 0  # length of the window; 0 in old records

    @property
    def key(self) -> bytes:
        return f"{self.worker} {self.start_ms}".encode()

    def encode(self) -> bytes:
        return _encoder.encode(self)

    @staticmethod
    def decode(value: bytes) -> WindowRecord:
        """Raises `msgspec.DecodeError` for anything `encode` did not write."""
        return _decoder.decode(value)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(WindowRecord)


@dataclass
class _Open:
    counts: dict[str, Table] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    busiest: dict[bytes, int] = field(default_factory=dict)
    first_met: set[int] = field(default_factory=set)
    changed: bool = True


class WindowCounter:
    """A worker's own windows. `worker` must differ between processes and between starts of one.

    >>> counter = WindowCounter("updater-0 a1b2", WindowConfig(window_ms=1000, grace_share=0))
    >>> counter.add("new_user_rate", times_ms=[10, 20, 1500], bins=[1, 0, 0], size=2)
    >>> [(record.start_ms, record.counts) for record in counter.take()]
    [(0, {'new_user_rate': [1, 1]}), (1000, {'new_user_rate': [1, 0]})]
    >>> counter.take()
    []
    """

    _BUSIEST = 64  # users remembered per window
    _FIRST_MET = 10_000  # items remembered per window

    def __init__(self, worker: str, config: WindowConfig) -> None:
        self.worker, self.config = worker, config
        self.newest_ms = 0
        self._open: dict[int, _Open] = {}

    def add(self, signal: str, times_ms: Numbers, bins: Numbers, size: int, epoch: str = "") -> None:
        """Count one observation per entry: `bins` in 0..size-1, at event times `times_ms`."""
        if not len(times_ms):
            return
        times, where = np.asarray(times_ms, dtype=np.int64), np.asarray(bins, dtype=np.int64)
        self.newest_ms = max(self.newest_ms, int(times.max()))
        starts = times - times % self.config.window_ms
        name = f"{signal} {epoch}" if epoch else signal
        first, last = int(starts.min()), int(starts.max())
        for start in [first] if first == last else np.unique(starts).tolist():
            table = np.bincount(where if first == last else where[starts == start], minlength=size)
            window = self._window(start)
            before = window.counts.get(name)
            window.counts[name] = table if before is None else before + table

    def total(self, name: str, time_ms: int, count: int = 1) -> None:
        """Add to a plain sum, without changing `newest_ms`."""
        self._window(time_ms - time_ms % self.config.window_ms).totals[name] += count

    def add_total(self, name: str, times_ms: Numbers) -> None:
        """Add one to a plain sum for each of these event times."""
        times = np.asarray(times_ms, dtype=np.int64)
        starts, counts = np.unique(times - times % self.config.window_ms, return_counts=True)
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
            self._window(start).totals[name] += count

    def users(self, time_ms: int, events: Mapping[bytes, int]) -> None:
        """Count events of users, to find the busiest: a user with over 1/64 of a window's events is always found, and
        the count is too small by at most that share (Misra & Gries 1982; merged as in Agarwal et al., "Mergeable
        summaries", 2012)."""
        window = self._window(time_ms - time_ms % self.config.window_ms)
        busiest = window.busiest
        for user, count in events.items():
            busiest[user] = busiest.get(user, 0) + count
        if len(busiest) > self._BUSIEST:
            cut = sorted(busiest.values())[-self._BUSIEST - 1]
            window.busiest = {user: count - cut for user, count in busiest.items() if count > cut}

    def first_met(self, time_ms: int, items: Iterable[int]) -> None:
        """Remember hashes of items that this worker met for the first time. Items over the limit are only counted, in
        the plain sum `new_items`."""
        window = self._window(time_ms - time_ms % self.config.window_ms)
        for item in items:
            if item in window.first_met:
                continue
            if len(window.first_met) < self._FIRST_MET:
                window.first_met.add(item)
            else:
                window.totals["new_items"] += 1

    def take(self) -> list[WindowRecord]:
        """Records of the windows that changed since the last call, oldest first. Windows long past are forgotten."""
        records = []
        for start in sorted(self._open):
            window = self._open[start]
            if window.changed:
                window.changed = False
                records.append(
                    WindowRecord(
                        self.worker,
                        start,
                        self.newest_ms,
                        {name: table.tolist() for name, table in window.counts.items()},
                        dict(window.totals),
                        {"user_events": max(window.busiest.values(), default=0)},
                        sorted(window.first_met),
                        self.config.window_ms,
                    )
                )
            # Kept one window longer than the merge waits: a late event must add to the window's totals and not begin
            # new ones, which would replace them.
            if start + 2 * self.config.window_ms + self.config.grace_ms < self.newest_ms:
                del self._open[start]
        return records

    def _window(self, start: int) -> _Open:
        window = self._open.get(start)
        if window is None:
            window = self._open[start] = _Open()
        window.changed = True
        return window


@dataclass(frozen=True)
class MergedWindow:
    """A closed window, summed over workers. `counts` maps (signal, epoch) to counts by bin; `kinds` are those of the
    workers that counted."""

    start_ms: int
    counts: Mapping[tuple[str, str], Table]
    totals: Mapping[str, int]
    peaks: Mapping[str, int]
    first_met: frozenset[int] = frozenset()
    kinds: frozenset[str] = frozenset()

    def epochs(self, signal: str) -> list[str]:
        return [epoch for name, epoch in self.counts if name == signal]


class OtherWindowLength(ValueError):
    """A worker counts in windows of another length, which cannot be added."""

    def __init__(self, record: WindowRecord, window_ms: int) -> None:
        length = f"windows of {record.window_ms / 1000:g} s" if record.window_ms else "windows of another length"
        super().__init__(
            f"{record.worker} counts {length}, this trainer of {window_ms / 1000:g} s: its counts are left out. Start "
            "all processes with the same --window-seconds"
        )
        self.length_ms = record.window_ms


class WindowMerge:
    """Adds up the workers' records and closes windows in order of event time.

    A window closes when every worker with a record of it, or of the window before, has met events `grace_ms` past its
    end. It also closes when some worker has been a whole window further than that for `patience_ms` of the clock. So a
    worker that ended or is idle delays a window only for a short time, but records that are on their way are waited
    for, even when event time passes fast, as in a replay.
    """

    def __init__(self, config: WindowConfig) -> None:
        self.config = config
        self.late_records = 0
        self.closed_until_ms = 0  # end of the newest closed window
        self._records: dict[int, dict[str, WindowRecord]] = defaultdict(dict)
        self._newest_ms: dict[str, int] = {}
        self._last_workers: set[str] = set()  # of the newest closed window
        self._passed_ms: dict[int, int] = {}  # clock time at which some worker was found a whole window further

    def add(self, record: WindowRecord) -> None:
        """Raises `OtherWindowLength`."""
        window_ms = self.config.window_ms
        if (record.window_ms or window_ms) != window_ms or record.start_ms % window_ms:
            raise OtherWindowLength(record, window_ms)
        self._newest_ms[record.worker] = max(record.newest_ms, self._newest_ms.get(record.worker, 0))
        if record.start_ms < self.closed_until_ms:
            self.late_records += 1
            return
        self._records[record.start_ms][record.worker] = record

    def add_all(self, records: Iterable[WindowRecord]) -> None:
        for record in records:
            self.add(record)

    @property
    def newest_ms(self) -> int:
        """The newest event time any worker has met."""
        return max(self._newest_ms.values(), default=0)

    def open(self) -> list[MergedWindow]:
        """The windows that are not closed yet, with the counts so far."""
        return [_sum(start, list(self._records[start].values())) for start in sorted(self._records)]

    def close(self, now_ms: int | None = None) -> list[MergedWindow]:
        """The windows that are complete at `now_ms` of the clock, oldest first; each is returned once.

        Without `now_ms`, no slow worker is waited for, because all records have been read already.
        """
        closed: list[MergedWindow] = []
        config = self.config
        for start in sorted(self._records):
            end = start + config.window_ms
            workers = self._records[start].keys() | self._last_workers
            slowest = min(self._newest_ms.get(worker, 0) for worker in workers)
            fastest = max(self._newest_ms.values())
            if slowest < end + config.grace_ms:
                if fastest < end + config.grace_ms + config.window_ms:
                    break
                if now_ms is not None and now_ms - self._passed_ms.setdefault(start, now_ms) < config.patience_ms:
                    break
            records = self._records.pop(start)
            self._passed_ms.pop(start, None)
            self._last_workers = set(records)
            self.closed_until_ms = end
            closed.append(_sum(start, list(records.values())))
        horizon = self.closed_until_ms - 96 * config.window_ms
        self._newest_ms = {worker: newest for worker, newest in self._newest_ms.items() if newest >= horizon}
        return closed


def _sum(start_ms: int, records: Sequence[WindowRecord]) -> MergedWindow:
    counts: dict[tuple[str, str], Table] = {}
    totals: dict[str, int] = defaultdict(int)
    peaks: dict[str, int] = defaultdict(int)
    for record in records:
        for name, values in record.counts.items():
            signal, _, epoch = name.partition(" ")
            table = np.asarray(values, dtype=np.int64)
            before = counts.get((signal, epoch))
            if before is None:
                counts[signal, epoch] = table
            elif len(before) == len(table):
                counts[signal, epoch] = before + table
            else:  # a worker of another release: its counts cannot be added, which must not end the trainer
                log.warning("%s: %s has %d bins, others %d", record.worker, name, len(table), len(before))
        for name, value in record.totals.items():
            totals[name] += value
        for name, value in record.peaks.items():
            peaks[name] = max(peaks[name], value)
    first_met = frozenset(item for record in records for item in record.first_met)
    kinds = frozenset(record.worker.partition("@")[0] for record in records)
    return MergedWindow(start_ms, counts, dict(totals), dict(peaks), first_met, kinds)
