"""Pilots on the simulator, where the true difference between two variants is known, decided by the real code."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stream.pilots.counts import Counts, PilotTally
from stream.pilots.pilot import ListSettings, Pilot, Variant, place, started
from stream.pilots.report import PilotReport, report
from stream.sources.simulate import World, WorldConfig

_MISS = 1_000
_SOUND = 0.9  # share of the variant's lists


class _Told(World):
    """Remembers what the last event was drawn from."""

    def truth(self, user: int) -> np.ndarray:
        self.known = super().truth(user)
        return self.known


class Events(NamedTuple):
    users: np.ndarray  # int64 [n]
    ranks: np.ndarray  # int64 [n], in the best list there can be at the moment of each event
    coins: np.ndarray  # float64 [n, 2], for the lists of both sides


def world_events(seed: int, count: int, config: WorldConfig) -> Events:
    world, rng = _Told(config, np.random.default_rng(seed)), np.random.default_rng([seed, 1])
    users, ranks = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for number in range(count):
        event = world.event()
        users[number] = event.user
        ranks[number] = (world.known > world.known[event.item]).sum() + 1
    return Events(users, ranks, rng.random((count, 2)))


def readings(
    events: Events, advantage: float, name: str, shares: tuple[float, ...] = (0.1, 0.5), look_every: int = 500
) -> Iterator[PilotReport]:
    """The reports of a pilot while it runs. Both sides serve the best lists there can be, and spoil some: so many that
    the variant's hit rate is larger by `advantage`, as a share of control's."""
    pilot: Pilot = started(name, [Variant("b", ListSettings("popularity"))], shares[0], 0.05, 0)
    tally, held = PilotTally("scorer"), dict[int, Counts]()
    met: set[tuple[int, int]] = set()
    growing = [len(events.users) * (number + 1) // (4 * (len(shares) - 1)) for number in range(len(shares) - 1)]
    for number, (user, rank) in enumerate(zip(events.users.tolist(), events.ranks.tolist(), strict=True)):
        if number in growing:
            pilot = pilot.at(shares[growing.index(number) + 1], number)
        key = b"u%d" % user
        found = pilot.variant_of(key)
        assert found is not None
        if (user, pilot.stage) not in met:
            met.add((user, pilot.stage))
            tally.user(name, pilot.stage, found.name)
        mine, control = events.coins[number] < (_SOUND, _SOUND / (1 + advantage))
        served = rank if control else _MISS
        shown, twin = (rank if mine else _MISS, served) if found.name == "b" else (served, None)
        tally.outcome(name, pilot.stage, found.name, place(name, key)[1], shown, twin)
        if (number + 1) % look_every == 0:
            held |= {counts.stage: counts for counts in tally.take()}
            yield report(pilot, held.values())


def verdict(reports: Iterator[PilotReport]) -> tuple[str, int]:
    """(The first verdict of the only variant, after how many readings); "" where none came. As people read it: over and
    over, until there is one."""
    for number, found in enumerate(reports, 1):
        (variant,) = found.variants
        assert found.ratio is None or found.ratio.p > 1e-9
        if variant.verdict in ("better", "worse"):
            return variant.verdict, number
    return "", 0
