"""A simulated world of users with known tastes: its events, and the true probabilities that each was drawn from.

Items belong to genres and to series inside them. A user stays with one genre for a while, often goes on with the next
item of the series, sometimes changes genre by a slowly drifting taste, and sometimes does something arbitrary. New
items are launched and genres come into fashion at known times. What a user does next therefore depends on the last few
interactions more than on the old ones, as in real logs.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from stream.sources.outbox import Outbox, Pacer, Send, SourceConfig, as_record
from stream.wire.records import Interaction

__all__ = [
    "SimulatedEvent",
    "SimulationResult",
    "World",
    "WorldConfig",
    "as_interaction",
    "broken_record",
    "encode_event",
    "simulate",
]


@dataclass(frozen=True)
class WorldConfig:
    users: int = 2000
    """Number of users."""
    items: int = 500
    """Number of items."""
    genres: int = 12
    """Number of genres."""
    series_length: int = 10
    """Items of a series, which follow each other."""
    stay: float = 0.85
    """Probability that a user stays with the genre."""
    sequel: float = 0.4
    """Probability that a user goes on with the series of the last item."""
    noise: float = 0.05
    """Probability of an arbitrary item."""
    drift: float = 0.02
    """Share of a user's taste that changes with each change of genre."""
    launched_late: float = 0.1
    """Share of items that are launched while the world runs."""
    launch_events: int = 20_000
    """Number of events over which these items are launched."""
    shifts: tuple[int, ...] = (15_000,)
    """Numbers of events after which another genre comes into fashion."""
    fashion: float = 4.0
    """How much more often a genre in fashion is chosen."""
    rest: int = 200
    """A user's own events before the same item can be met again."""

    def __post_init__(self) -> None:
        if min(self.users, self.items, self.genres, self.series_length) < 1:
            raise ValueError("a world needs at least one user, item, genre and item per series")
        if self.rest < 0:
            raise ValueError(f"rest must not be negative, got {self.rest}")
        if self.items < self.genres:
            raise ValueError(f"{self.items} items cannot fill {self.genres} genres")
        for name in ("stay", "sequel", "noise", "drift", "launched_late"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, got {getattr(self, name)}")


@dataclass(frozen=True)
class SimulatedEvent:
    user: int
    item: int
    number: int  # from 0


class World:
    """Draws events one at a time; `truth` is the distribution that the next event of a user is drawn from."""

    def __init__(self, config: WorldConfig, rng: np.random.Generator) -> None:
        self.config, self._rng = config, rng
        items, users = config.items, config.users
        self.genre = np.arange(items) % config.genres
        place = np.arange(items) // config.genres  # within the genre
        last = place % config.series_length == config.series_length - 1
        self.sequel = np.where(last, -1, np.arange(items) + config.genres)
        self.sequel[self.sequel >= items] = -1
        self.appeal = 1.0 / (1.0 + rng.permutation(items)) ** 0.7
        self.launch = np.zeros(items, dtype=np.int64)  # number of the event that launches an item
        late = rng.permutation(items)[: int(items * config.launched_late)]
        self.launch[late] = rng.integers(1, max(config.launch_events, 2), len(late))
        activity = 1.0 / (1.0 + np.arange(users)) ** 0.5
        self._activity = np.cumsum(rng.permutation(activity / activity.sum()))
        self.taste = rng.dirichlet(np.full(config.genres, 0.3), users)
        self.fashion = np.ones(config.genres)
        self._shifts = rng.permutation(config.genres)
        self.current = np.array([rng.choice(config.genres, p=taste) for taste in self.taste])
        self.last = np.full(users, -1)
        self.seen = np.zeros((users, items), dtype=bool)  # met by the user, and not yet free to be met again
        self._resting: list[deque[int]] = [deque() for _ in range(users)]
        self.number = 0

    def events(self) -> Iterator[SimulatedEvent]:
        while True:
            yield self.event()

    def event(self) -> SimulatedEvent:
        """The next event, of a user drawn by activity."""
        if self.number in self.config.shifts:
            self.fashion[:] = 1.0
            self.fashion[self._shifts[self.config.shifts.index(self.number) % len(self._shifts)]] = self.config.fashion
        user = int(np.searchsorted(self._activity, self._rng.random() * self._activity[-1]))
        item = self._choose(user)
        event = SimulatedEvent(user, item, self.number)
        self.number += 1
        self._meet(user, item)
        self.last[user] = item
        self.current[user] = self.genre[item]
        return event

    def truth(self, user: int) -> np.ndarray:
        """float64 [items]: the probability of each item to be the user's next item."""
        config = self.config
        free = ~self.seen[user] & (self.launch <= self.number)
        if not free.any():  # a user who has seen all items may meet any of them again
            free = self.launch <= self.number
        by_genre = self.taste[user] * self.fashion
        by_genre = (1 - config.stay) * by_genre / by_genre.sum()
        by_genre[self.current[user]] += config.stay
        weight = np.where(free, self.appeal, 0.0)
        within = np.bincount(self.genre, weight, minlength=config.genres)
        usable = by_genre * (within > 0)
        chosen = weight * (usable / np.maximum(within, 1e-300))[self.genre]
        chosen /= chosen.sum()
        following = self.sequel[self.last[user]] if self.last[user] >= 0 else -1
        if following >= 0 and free[following]:
            chosen *= 1 - config.sequel
            chosen[following] += config.sequel
        return (1 - config.noise) * chosen + config.noise * free / free.sum()

    def _choose(self, user: int) -> int:
        probability = self.truth(user)
        item = int(np.searchsorted(np.cumsum(probability), self._rng.random() * probability.sum()))
        item = min(item, self.config.items - 1)
        if self.genre[item] != self.current[user]:
            fresh = self._rng.dirichlet(np.full(self.config.genres, 0.3))
            self.taste[user] = (1 - self.config.drift) * self.taste[user] + self.config.drift * fresh
        return item

    def _meet(self, user: int, item: int) -> None:
        resting = self._resting[user]
        if not self.seen[user, item]:
            self.seen[user, item] = True
            resting.append(item)
        if len(resting) > self.config.rest:
            self.seen[user, resting.popleft()] = False

    def best_hit_rate(self, user: int, length: int = 10) -> float:
        """The probability that the user's next item is in the best possible list of `length` items."""
        return float(np.sort(self.truth(user))[-length:].sum())


def as_interaction(event: SimulatedEvent, timestamp_ms: int) -> Interaction:
    return Interaction(f"u{event.user}", f"i{event.item}", timestamp_ms, event="view")


def encode_event(event: SimulatedEvent, timestamp_ms: int) -> tuple[bytes, bytes]:
    """(key, value) of the record in the topic `interactions`."""
    return as_record(as_interaction(event, timestamp_ms))


def broken_record(rng: np.random.Generator, timestamp_ms: int) -> tuple[bytes | None, bytes]:
    """A record of a faulty producer: one of several kinds that must end in `dead-letters`."""
    user = b"u%d" % rng.integers(1000)
    good = b'{"user": "%s", "item": "i1", "timestamp": %d}' % (user, timestamp_ms)
    kinds: tuple[tuple[bytes | None, bytes], ...] = (
        (user, good[: len(good) // 2]),
        (user, b'{"user": "%s", "item": "i1"}' % user),
        (user, b'{"user": "%s", "item": [1], "timestamp": %d}' % (user, timestamp_ms)),
        (user, b'{"user": "%s", "item": "i1", "timestamp": %d}' % (user, timestamp_ms * 1000)),
        (None, good),
        (user, b"\xff\xfe" + good),
    )
    return kinds[int(rng.integers(len(kinds)))]


@dataclass(frozen=True)
class SimulationResult:
    sent: int  # sound events
    broken: int  # records that must become dead letters
    delivered: int  # of both
    seconds: float


def simulate(
    world: World,
    send: Send,
    stop: threading.Event,
    *,
    rate: float = 100.0,
    events: int | None = None,
    seconds: float | None = None,
    start_ms: int | None = None,
    broken: float = 0.0,
    rng: np.random.Generator | None = None,
    on_delivered: Callable[[int], None] | None = None,
    on_event: Callable[[Interaction], None] | None = None,
    config: SourceConfig | None = None,
    clock: Callable[[], float] = time.monotonic,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> SimulationResult:
    """Send the world's events, at random moments of the given mean rate, until one of the limits or `stop`.

    Args:
        rate: events per second; infinite sends as fast as `send` takes it.
        events: how many sound events; None for no limit.
        seconds: how long, by `clock`; None for no limit.
        start_ms: None gives events the time at which they are sent. Otherwise the world has its own clock, which starts
            here and runs at `rate` events per second (100 if infinite); the events are then sent without waiting.
        broken: share of broken records among all.
        rng: for the times and the broken records; separate from the world's, so that its events depend on neither.
        on_delivered: called now and then with the number of delivered records, broken ones included.
        on_event: called with each sound event before it is sent.

    Raises `SourceError` when a record cannot be delivered.
    """
    if not rate > 0:
        raise ValueError(f"rate must be positive, got {rate}")
    if not 0 <= broken < 1:
        raise ValueError(f"broken must be in [0, 1), got {broken}")
    rng = rng or np.random.default_rng()
    outbox = Outbox(send, config, on_delivered, stop)
    pacer = Pacer(stop, clock)
    gap = 1.0 / rate if math.isfinite(rate) else 0.0
    due = world_seconds = 0.0
    sound = defects = 0
    while events is None or sound < events:
        if start_ms is None:
            due += rng.exponential(gap)
        if seconds is not None and max(due, pacer.elapsed) >= seconds:
            pacer.wait(seconds, outbox.collect)
            break
        if not pacer.wait(due, outbox.collect):
            break
        if start_ms is None:
            timestamp = now_ms()
        else:
            world_seconds += rng.exponential(gap or 0.01)
            timestamp = start_ms + int(1000 * world_seconds)
        if broken and rng.random() < broken:
            outbox.send(*broken_record(rng, timestamp))
            defects += 1
            continue
        event = as_interaction(world.event(), timestamp)
        if on_event is not None:
            on_event(event)
        outbox.send(*as_record(event))
        sound += 1
    outbox.drain()
    return SimulationResult(sound, defects, outbox.delivered, pacer.elapsed)
