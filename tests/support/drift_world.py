"""A stationary stream with a known seam: sessions of users with tastes of their own, counted into windows.

Everything the drift monitor watches is drawn from one distribution until `shift_at`; then exactly one thing changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from ops.monitor.bins import ItemBins
from ops.monitor.windows import MergedWindow

Shift = Literal["none", "popularity", "unknown_items", "history_length"]
NAMED = {"popularity": "item_popularity", "unknown_items": "unknown_item_rate", "history_length": "history_length"}
WINDOW_MS = 15 * 60 * 1000


@dataclass(frozen=True)
class DriftWorld:
    items: int = 3000
    users: int = 8000
    session: float = 4.0  # events of one user in a row
    taste: float = 0.15  # share of a user's events on a few favourites
    unknown: float = 0.002
    new_users: float = 0.02
    window_events: int = 2000
    events: int = 200_000
    shift: Shift = "none"
    shift_at: int = 100_000


def observations(world: DriftWorld, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Raw observations of each window, an array per column; item -1 is one that no reference knows."""
    rng = np.random.default_rng(seed)
    share = 1.0 / (10 + np.arange(world.items))
    share /= share.sum()
    popular = np.arange(world.items)  # rank -> item
    favourites = rng.choice(world.items, (world.users, 3), p=share)
    lengths = np.maximum(rng.lognormal(2.5, 0.8, world.users).astype(np.int64), 1)
    activity = 1.0 / (20 + np.arange(world.users)) ** 0.7
    activity /= activity.sum()
    score = np.clip(rng.normal(0.6, 0.1, world.users), 0, 1)
    for number in range(world.events // world.window_events):
        shifted = world.shift != "none" and number * world.window_events >= world.shift_at
        sessions = int(world.window_events / world.session * 2)
        each = rng.geometric(1 / world.session, sessions)
        users = np.repeat(rng.choice(world.users, sessions, p=activity), each)[: world.window_events]
        n = len(users)
        if shifted and world.shift == "popularity":
            popular = np.arange(world.items)
            popular[:50:2], popular[1000:1025] = np.arange(1000, 1025), np.arange(0, 50, 2)
        items = popular[rng.choice(world.items, n, p=share)]
        own = rng.random(n) < world.taste
        items[own] = popular[favourites[users[own], rng.integers(0, 3, own.sum())]]
        unknown = rng.random(n) < (0.1 if shifted and world.shift == "unknown_items" else world.unknown)
        items[unknown] = -1
        yield {
            "item": items,
            "length": lengths[users] * (2 if shifted and world.shift == "history_length" else 1),
            "gap": np.exp(rng.normal(6, 2.5, n)).astype(np.int64),
            "new_user": (rng.random(n) < world.new_users).astype(np.int64),
            "event_type": rng.choice(3, n, p=[0.9, 0.08, 0.02]),
            "score": np.clip(score[users] + rng.normal(0, 0.1, n), 0, 1),
            "margin": rng.gamma(2, 0.1, n),
        }


def windows(world: DriftWorld, seed: int) -> Iterator[MergedWindow]:
    """The same stream, counted as the workers count it."""
    for number, seen in enumerate(observations(world, seed)):
        yield count(world, number, seen)


def count(world: DriftWorld, number: int, seen: dict[str, np.ndarray]) -> MergedWindow:
    log2 = np.minimum(np.ceil(np.log2(seen["length"])).astype(np.int64), 9)
    log4 = np.minimum(np.floor(np.log2(np.maximum(seen["gap"], 0.5)) / 2).astype(np.int64) + 1, 13)
    bin_of, size = _item_bins(world.items)
    tables = {
        "item_popularity": np.bincount(bin_of[seen["item"]], minlength=size),
        "unknown_item_rate": np.bincount(seen["item"] < 0, minlength=2),
        "new_user_rate": np.bincount(seen["new_user"], minlength=2),
        "history_length": np.bincount(log2, minlength=10),
        "inter_arrival": np.bincount(log4, minlength=14),
        "event_type": np.bincount(seen["event_type"], minlength=8),
        "score_top1": np.bincount(np.searchsorted(np.linspace(0.3, 0.9, 9), seen["score"]), minlength=10),
        "score_margin": np.bincount(np.minimum((seen["margin"] * 10).astype(np.int64), 9), minlength=10),
    }
    return MergedWindow(number * WINDOW_MS, {(name, ""): table for name, table in tables.items()}, {}, {})


@cache
def _item_bins(items: int) -> tuple[np.ndarray, int]:
    """The bin of each item, and of no item at the end."""
    bins = ItemBins.fit({str(item): items - item for item in range(items)})
    return np.array([bins.of(str(item)) for item in range(items)] + [bins.unknown]), bins.size
