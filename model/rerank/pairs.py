"""Makes `CountedEvents`: new events, and their pairs with the histories before them.

Legend: n events, B users, L places of a history.
"""

from __future__ import annotations

import numpy as np

from model.rerank.asked import VISIT_MS, Asked, earlier_places
from model.rerank.counts import CountedEvents

__all__ = ["counted_events"]

_TOGETHER = 20  # other items of one moment that an item is paired with, in both directions


def counted_events(
    asked: Asked, users: np.ndarray, items: np.ndarray, weights: np.ndarray | None = None
) -> CountedEvents:
    """n events: `users` int64 [n] meet `items` int64 [n] at `asked.now_ms`; `asked` has their histories before that.

    Events of one user and moment must be adjacent. Without `weights` float32 [n] every event counts once.
    """
    weights = np.ones(len(items), dtype=np.float32) if weights is None else weights
    _, counted = earlier_places(asked.times_ms, asked.lengths)
    counted = counted & (asked.columns >= 0) & (asked.columns != items[:, None])
    rows, places = np.nonzero(counted)
    earlier, later = [asked.columns[rows, places]], [items[rows]]
    events = [rows]
    close = [asked.now_ms[rows] - asked.times_ms[rows, places] < VISIT_MS]
    for gap in range(1, _TOGETHER + 1):
        if gap >= len(items):
            break
        together = (users[gap:] == users[:-gap]) & (asked.now_ms[gap:] == asked.now_ms[:-gap])
        first = np.flatnonzero(together & (items[gap:] != items[:-gap]))
        if not len(first):
            break
        earlier += [items[first], items[first + gap]]
        later += [items[first + gap], items[first]]
        events += [first + gap, first + gap]
        close += [np.ones(len(first), dtype=bool)] * 2
    of = np.concatenate(events)
    return CountedEvents(
        items,
        asked.now_ms,
        weights,
        np.concatenate(earlier),
        np.concatenate(later),
        asked.now_ms[of],
        weights[of],
        np.concatenate(close),
    )
