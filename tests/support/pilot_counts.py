"""Counts of a pilot with known rates, as scorers would have made them."""

import numpy as np

from stream.pilots.counts import RANKS, Counts, PilotTally
from stream.pilots.pilot import BUCKETS, CONTROL

__all__ = ["counted"]


def counted(
    rates: dict[str, float], users: dict[str, int], outcomes: int = 10_000, stage: int = 1, pilot: str = "p"
) -> list[Counts]:
    """What two scorers counted: every variant's events hit at rank 2 with these rates, and control's list would have
    hit the same events with its own."""
    rng, tallies = np.random.default_rng(0), [PilotTally("scorer@one"), PilotTally("scorer@two")]
    for variant, number in users.items():
        for user in range(number):
            tallies[user % 2].user(pilot, stage, variant)
    for variant, rate in rates.items():
        buckets, hits = rng.integers(0, BUCKETS, outcomes), rng.random((outcomes, 2)) < (rate, rates[CONTROL])
        for at, (bucket, (hit, other)) in enumerate(zip(buckets.tolist(), hits.tolist(), strict=True)):
            twin = None if variant == CONTROL else 2 if other else RANKS + 1
            tallies[at % 2].outcome(pilot, stage, variant, bucket, 2 if hit else RANKS + 5, twin)
    return [Counts.decode(record.encode()) for tally in tallies for record in tally.take()]
