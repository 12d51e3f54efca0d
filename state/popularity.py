"""Time-decayed popularity in event time: it is served before a model exists, and every model is compared with it."""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Mapping

import msgspec

__all__ = ["Popularity"]

_EVENTS_PER_TOP = 64  # the top is chosen again after so many events, or after a 64th of the events before it
_MOST_EVENTS_PER_TOP = 1024
_SMALL_TOP = 50  # a top shorter than this is chosen again at every `refresh` with new events
_LARGEST_EXPONENT = 500  # floats end at 2^1023
_DUMP = tuple[int, int, dict[str, float]]
_STATE = tuple[int, int, dict[str, float], list[str], list[str], int, int]


class Popularity:
    """Counts that halve every `half_life_ms` of event time.

    Each event adds its strength times 2^((time - origin) / half_life), so all counts decay at the same rate without
    being changed. Late events simply count less. `kept` items can be ranked. When there are more than `most_items`
    items, the less popular ones are forgotten, so that half of `most_items` are left.

    >>> popularity = Popularity(half_life_ms=1000)
    >>> for item, time_ms in [("old", 0), ("old", 0), ("new", 2000)]:
    ...     popularity.add(item, time_ms)
    >>> popularity.refresh()
    >>> popularity.top(exclude=(), count=2)
    [('new', 1.0), ('old', 0.5)]
    """

    def __init__(self, half_life_ms: int, kept: int = 2000, most_items: int = 500_000) -> None:
        if half_life_ms <= 0:
            raise ValueError(f"half_life_ms must be positive, got {half_life_ms}")
        if not 0 < kept <= most_items // 2:
            raise ValueError(f"kept must be in 1..most_items/2, got {kept} of {most_items}")
        self._half_life_ms, self._kept, self._most_items = half_life_ms, kept, most_items
        self._weights: dict[str, float] = {}
        self._origin_ms = 0
        self._newest_ms = 0
        self._top: list[str] = []
        self._changed: set[str] = set()  # since the top was taken
        self._events = 0  # since the top was taken
        self._counted = 0  # before that

    def __len__(self) -> int:
        return len(self._weights)

    def __contains__(self, item: str) -> bool:
        return item in self._weights

    @property
    def newest_ms(self) -> int:
        """Event time of the newest event that was counted; 0 before the first."""
        return self._newest_ms

    def add(self, item: str, time_ms: int, strength: float = 1.0) -> None:
        """Count an event at `time_ms` of event time. Lists stay as they are until `refresh`."""
        exponent = (time_ms - self._origin_ms) / self._half_life_ms
        if exponent > _LARGEST_EXPONENT:
            self._move_origin(time_ms)
            exponent = 0.0
        self._newest_ms = max(self._newest_ms, time_ms)
        self._weights[item] = self._weights.get(item, 0.0) + strength * 2.0**exponent
        self._changed.add(item)
        self._events += 1

    def _move_origin(self, origin_ms: int) -> None:
        factor = 2.0 ** max((self._origin_ms - origin_ms) / self._half_life_ms, -1000)
        scaled = ((item, weight * factor) for item, weight in self._weights.items())
        self._weights = {item: weight for item, weight in scaled if weight > 1e-12}
        self._origin_ms = origin_ms

    def refresh(self) -> None:
        """Choose the top items again if there were enough new events."""
        due = min(max(self._counted // _EVENTS_PER_TOP, _EVENTS_PER_TOP), _MOST_EVENTS_PER_TOP)
        if self._events >= due or (self._events and len(self._top) < _SMALL_TOP):
            self.take_top()

    def take_top(self) -> None:
        """Choose the top items again in any case."""
        # Counts only grow, and decay at the same rate, so an item that did not change cannot overtake the old top: the
        # cost does not depend on the size of the catalogue.
        contenders = self._changed.union(self._top) & self._weights.keys()
        self._top = _heaviest(self._weights, self._kept, contenders)
        self._changed.clear()
        self._counted, self._events = self._counted + self._events, 0
        if len(self._weights) > self._most_items:
            heaviest = _heaviest(self._weights, self._most_items // 2, self._weights)
            self._weights = {item: self._weights[item] for item in heaviest}

    def top(self, exclude: Container[str], count: int) -> list[tuple[str, float]]:
        """The `count` most popular items outside `exclude`, with their decayed counts, as of the last `refresh`."""
        now = 2.0 ** -((self._newest_ms - self._origin_ms) / self._half_life_ms)
        found = []
        for item in self._top:
            if item not in exclude:
                found.append((item, self._weights.get(item, 0.0) * now))
                if len(found) == count:
                    break
        return found

    def rank(self, item: str, exclude: Container[str], count: int) -> int:
        """1-based rank of `item` in `top(exclude, count)`; one past the `count` when it is not there."""
        rank = 1
        for other in self._top:
            if other not in exclude:
                if other == item:
                    return rank
                rank += 1
                if rank > count:
                    break
        return count + 1

    def dump(self) -> bytes:
        """Choose the top again, and encode the items that can be ranked, to be loaded after a restart."""
        self.take_top()
        kept = {item: self._weights[item] for item in self._top}
        return msgspec.msgpack.encode((self._origin_ms, self._newest_ms, kept))

    def load(self, dumped: bytes) -> None:
        """Load what `dump` wrote. Raises `msgspec.DecodeError` for anything else."""
        self._origin_ms, self._newest_ms, self._weights = msgspec.msgpack.decode(dumped, type=_DUMP)
        self._top, self._changed = [], set(self._weights)
        self.take_top()

    def state(self) -> bytes:
        """The whole state: an object that restores it continues exactly as this one does."""
        top, changed = self._top, sorted(self._changed)
        return msgspec.msgpack.encode(
            (self._origin_ms, self._newest_ms, self._weights, top, changed, self._events, self._counted)
        )

    def restore(self, state: bytes) -> None:
        """Restore what `state` returned. Raises `msgspec.DecodeError` for anything else."""
        found = msgspec.msgpack.decode(state, type=_STATE)
        self._origin_ms, self._newest_ms, self._weights, self._top, changed, self._events, self._counted = found
        self._changed = set(changed)


def _heaviest(weights: Mapping[str, float], count: int, items: Iterable[str]) -> list[str]:
    return heapq.nlargest(count, items, key=lambda item: (weights[item], item))
