"""Counts of the stream's events: demand for each item, and which items follow which.

Both are sums over events that decay with several half-lives. So the counts do not depend on the order of events, and
adding the counts of two parts of a log gives those of the whole. An event that is added twice counts twice: callers add
each event once; adding it again with the negative weight takes it back.

The counts have a catalogue of their own. It grows with the events, so an item can be listed before any model knows it.

Legend: n events, p pairs, C columns (items), H half-lives of demand, S sums of a pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from model.rerank.decay import DAY_MS, DecayClock
from model.rerank.follows import CLASSES, Follows

__all__ = ["CountedEvents", "CountsConfig", "StreamCounts"]


@dataclass(frozen=True)
class CountsConfig:
    """Half-lives in days; 0 stands for counts that do not decay."""

    demand_days: tuple[float, ...] = (0.125, 0.5, 2.0, 8.0, 32.0, 0.0)
    pair_days: tuple[float, ...] = (24.0, 0.0)
    followers: int = 64  # kept per item
    most_rows: int = 200_000  # items whose followers are kept

    def __post_init__(self) -> None:
        if not self.demand_days or not self.pair_days or min((*self.demand_days, *self.pair_days)) < 0:
            raise ValueError(f"half-lives must not be negative, got {self.demand_days} and {self.pair_days}")
        if self.followers < 1 or self.most_rows < 2:
            raise ValueError(f"need 1 follower and 2 rows at least, got {self.followers} and {self.most_rows}")

    @property
    def sums(self) -> int:
        """Sums of a pair: S."""
        return CLASSES * len(self.pair_days)


@dataclass(frozen=True)
class CountedEvents:
    """n events, and their p pairs with earlier events. The time of a pair is that of its later event."""

    items: np.ndarray  # int64 [n] columns
    times_ms: np.ndarray  # int64 [n]
    weights: np.ndarray  # float32 [n], negative for events that are taken back
    earlier: np.ndarray  # int64 [p] columns
    later: np.ndarray  # int64 [p] columns
    pair_times_ms: np.ndarray  # int64 [p]
    pair_weights: np.ndarray  # float32 [p]
    close: np.ndarray  # bool [p], both in one visit


class StreamCounts:
    """Not thread-safe: one thread adds and reads."""

    def __init__(self, config: CountsConfig | None = None) -> None:
        self.config = config or CountsConfig()
        self.ids: list[str] = []
        self._columns: dict[str, int] = {}
        halves = [days * DAY_MS or np.inf for days in self.config.demand_days]
        pairs = [days * DAY_MS or np.inf for days in self.config.pair_days]
        self._halves = len(halves)
        self.clock = DecayClock([*halves, *pairs])
        self.demand = np.zeros((1, len(halves)))  # float64 [C at least, H], in the scale of the clock
        self.first_ms = np.zeros(1, dtype=np.int64)  # [C] of the first event, 0 before it
        self.last_ms = np.zeros(1, dtype=np.int64)  # [C]
        self.follows = Follows(self.config.sums, self.config.followers, self.config.most_rows)
        self.newest_ms = 0
        self.events = 0

    def __len__(self) -> int:
        return len(self.ids)

    def columns(self, items: Iterable[str]) -> np.ndarray:
        """int64 columns of items, -1 for those never counted."""
        return np.fromiter(map(self._columns.get, items, repeat(-1)), dtype=np.int64)

    def known(self, items: Sequence[str]) -> np.ndarray:
        """int64 columns of items; an item without a column gets one."""
        for item in items:
            if item not in self._columns:
                self._columns[item] = len(self.ids)
                self.ids.append(item)
        if len(self.ids) > len(self.demand):
            size = max(len(self.ids), 2 * len(self.demand), 256)
            for name in ("demand", "first_ms", "last_ms"):
                old = getattr(self, name)
                wider = np.zeros((size, *old.shape[1:]), dtype=old.dtype)
                wider[: len(old)] = old
                setattr(self, name, wider)
        return self.columns(items)

    def add(self, events: CountedEvents) -> None:
        """Count events once."""
        if not len(events.items):
            return
        newest_ms = int(max(events.times_ms.max(), events.pair_times_ms.max(initial=0)))
        factors = self.clock.advance(newest_ms)
        if factors is not None:
            self.demand *= factors[: self._halves]
            self.follows.scale(np.tile(factors[self._halves :], CLASSES))
        self.newest_ms = max(self.newest_ms, newest_ms)
        self.events += len(events.items)
        powers = self.clock.powers(events.times_ms)[:, : self._halves] * events.weights[:, None]
        np.add.at(self.demand, events.items, powers)
        positive = events.weights > 0
        items, times_ms = events.items[positive], events.times_ms[positive]
        np.maximum.at(self.last_ms, items, times_ms)
        first = np.where(self.first_ms[items] == 0, np.iinfo(np.int64).max, self.first_ms[items])
        self.first_ms[items] = first
        np.minimum.at(self.first_ms, items, times_ms)
        pairs = self.clock.powers(events.pair_times_ms)[:, self._halves :] * events.pair_weights[:, None]
        contributions = np.concatenate([pairs * events.close[:, None], pairs * ~events.close[:, None]], 1)
        self.follows.add(events.earlier, events.later, contributions, len(self.ids))

    def demand_factors(self, now_ms: np.ndarray) -> np.ndarray:
        """float32 [n, H]: factors from stored demand to its values at `now_ms` int64 [n]."""
        return self.clock.factors(now_ms)[:, : self._halves]

    def pair_factors(self, now_ms: np.ndarray) -> np.ndarray:
        """float32 [n, S]: factors from stored sums of pairs to their values at `now_ms` int64 [n]."""
        return np.tile(self.clock.factors(now_ms)[:, self._halves :], CLASSES)

    def most_wanted(self, count: int) -> np.ndarray:
        """int64 [at most count] columns of the items with the largest shares of all demand, averaged over the
        half-lives, as of the newest event."""
        demand = self.demand[: len(self.ids)] * self.demand_factors(np.array([self.newest_ms]))
        shares = (demand / np.maximum(demand.sum(0), 1e-30)).sum(1)
        count = min(count, int((shares > 0).sum()))
        top = np.argpartition(-shares, count - 1)[:count] if count else np.empty(0, dtype=np.int64)
        return top[np.lexsort((top, -shares[top]))]

    # -- on disk -------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that `restore` needs, besides the ids."""
        count = len(self.ids)
        own = {
            "clock": np.array([self.clock.origin_ms, self.newest_ms, self.events], dtype=np.int64),
            "demand": self.demand[:count],
            "first_ms": self.first_ms[:count],
            "last_ms": self.last_ms[:count],
        }
        return own | {f"follows.{name}": values for name, values in self.follows.state().items()}

    @classmethod
    def restore(cls, config: CountsConfig, ids: Sequence[str], state: dict[str, np.ndarray]) -> StreamCounts:
        """The counts of a saved state. Raises ValueError for a state of another configuration, and KeyError for one
        with missing parts."""
        counts = cls(config)
        counts.known(list(ids))
        if state["demand"].shape != (len(counts.ids), counts._halves):
            raise ValueError(f"demand has shape {state['demand'].shape}, expected {(len(counts.ids), counts._halves)}")
        for name in ("demand", "first_ms", "last_ms"):
            getattr(counts, name)[: len(counts.ids)] = state[name]
        counts.clock.origin_ms, counts.newest_ms, counts.events = (int(value) for value in state["clock"])
        counts.follows.restore({name: state[f"follows.{name}"] for name in counts.follows.state()})
        return counts
