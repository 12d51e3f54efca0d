"""How often a pilot is decided rightly, and how often without reason, when its report is read over and over.

    python tests/benchmarks/bench_pilots.py [--runs 100] [--events 20000]

Each run is a seeded world of the simulator (2,000 users, 500 items), whose next event's distribution is known. Control
and the variant serve the best lists there can be, and spoil some of them, so that the variant's hit rate is larger by
exactly 10 % of control's, or not at all. The share grows from 10 % to 50 % of the users after a quarter of the events.
Assignment, counts, intervals and verdict are those of `freshet pilot`; the report is read every 500 events, and the
first verdict counts.
"""

import argparse
import platform
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from stream.sources.simulate import WorldConfig
from tests.support.pilot_world import readings, verdict, world_events

_EVERY = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--events", type=int, default=20_000)
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    started = time.perf_counter()
    right, wrong, false, delays, reports = 0, 0, 0, [], 0
    for seed in range(arguments.runs):
        events = world_events(seed, arguments.events, WorldConfig())
        found, after = verdict(readings(events, 0.1, f"pilot-{seed}", look_every=_EVERY))
        right, wrong = right + (found == "better"), wrong + (found == "worse")
        delays += [after * _EVERY] if found == "better" else []
        reports += after or arguments.events // _EVERY
        found, after = verdict(readings(events, 0.0, f"pilot-{seed}", look_every=_EVERY))
        false += found != ""
        reports += after or arguments.events // _EVERY
        if (seed + 1) % 10 == 0:
            print(f"{seed + 1} runs: {right} right, {wrong} wrong; without a difference {false} verdicts", flush=True)
    runs = arguments.runs
    print(f"\na difference of 10 %: decided rightly in {right} of {runs} runs, wrongly in {wrong}")
    if delays:
        print(f"events until the verdict: median {statistics.median(delays):,.0f}, most {max(delays):,}")
    print(f"no difference: a verdict in {false} of {runs} runs")
    print(f"{reports:,} reports read, {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
