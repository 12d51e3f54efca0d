"""False alarms and delays of drift detection, side by side on the same streams.

    python tests/benchmarks/bench_ops_drift.py [--runs 50]

Each run has 200,000 events; in the shifted ones exactly one thing changes after 100,000. Rivals: PSI with the constant
0.1 on raw columns as Evidently computes it (its `stattests/psi.py`: 30 histogram bins for numbers, one per category,
zeros replaced by 1e-4 or a millionth of the smallest share), and river's ADWIN and Page-Hinkley with their defaults on
the same columns, event by event. A detector is judged on the column that the shift changes; an alarm on any column
before a shift, or in a stationary run, is false.
"""

import argparse
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from river.drift import ADWIN, PageHinkley

from ops.monitor.drift_monitor import DriftConfig, DriftMonitor
from ops.monitor.quality import PairedCounts, QualityConfig, QualityMonitor
from tests.support.drift_world import NAMED, DriftWorld, Shift, count, observations

SHIFTS: tuple[Shift, ...] = ("none", "popularity", "unknown_items", "history_length")
COLUMN = {"popularity": "item", "unknown_items": "item", "history_length": "length"}
REFERENCE_WINDOWS = 16


def evidently_psi(current: np.ndarray, reference: np.ndarray, categories: bool) -> float:
    if categories:
        keys = np.union1d(current, reference)
        x, y = (np.bincount(np.searchsorted(keys, sample), minlength=len(keys)) for sample in (current, reference))
    else:
        edges = np.histogram_bin_edges(reference, bins=30)
        x, y = np.histogram(current, edges)[0], np.histogram(reference, edges)[0]
    p, q = (_filled(counts / counts.sum()) for counts in (x, y))
    return float(((p - q) * np.log(p / q)).sum())


def _filled(share: np.ndarray) -> np.ndarray:
    least = share[share > 0].min()
    return np.where(share == 0, least / 1e6 if least <= 1e-4 else 1e-4, share)


class Result:
    """Per shift: false alarms, delays in events of the true ones, and how often something else was named too."""

    def __init__(self) -> None:
        self.false: dict[Shift, int] = dict.fromkeys(SHIFTS, 0)
        self.quiet_runs = 0
        self.delays: dict[Shift, list[int]] = {shift: [] for shift in SHIFTS}
        self.misnamed: dict[Shift, int] = dict.fromkeys(SHIFTS, 0)


def monitor(world: DriftWorld, seen: list[dict[str, np.ndarray]]) -> tuple[int, int | None, int]:
    """(false drift states, delay in events, wrong signals named)."""
    watch = DriftMonitor(DriftConfig())
    false, delay, wrong = 0, None, 0
    for number, one in enumerate(seen):
        events = (number + 1) * world.window_events
        shifted = world.shift != "none" and events > world.shift_at
        for found in watch.update(count(world, number, one)):
            if found.entered != "drift":
                continue
            if not shifted:
                false += 1
            elif found.signal != NAMED[world.shift]:
                wrong += 1
            elif delay is None:
                delay = events - world.shift_at
    return false, delay, wrong


def psi_constant(world: DriftWorld, seen: list[dict[str, np.ndarray]]) -> tuple[int, int | None, int]:
    columns = ("item", "length", "gap", "event_type", "score", "margin", "new_user")
    reference = {name: np.concatenate([one[name] for one in seen[:REFERENCE_WINDOWS]]) for name in columns}
    false, delay, wrong = 0, None, 0
    alarmed: set[str] = set()
    for number, one in enumerate(seen[REFERENCE_WINDOWS:], start=REFERENCE_WINDOWS):
        events = (number + 1) * world.window_events
        shifted = world.shift != "none" and events > world.shift_at
        now = {
            name
            for name in columns
            if evidently_psi(one[name], reference[name], name in ("item", "event_type", "new_user")) >= 0.1
        }
        for name in now - alarmed:  # an alarm that stays on is one alarm
            if not shifted:
                false += 1
            elif name != COLUMN[world.shift]:
                wrong += 1
        if shifted and delay is None and COLUMN[world.shift] in now:
            delay = events - world.shift_at
        alarmed = now
    return false, delay, wrong


def river(make: Callable[[], Any]) -> Callable[..., tuple[int, int | None, int]]:
    def detect(world: DriftWorld, seen: list[dict[str, np.ndarray]]) -> tuple[int, int | None, int]:
        false, delay, wrong = 0, None, 0
        streams = {
            "popularity": np.concatenate([(one["item"] >= 0) & (one["item"] < 50) for one in seen]).astype(float),
            "unknown_items": np.concatenate([one["item"] < 0 for one in seen]).astype(float),
            "history_length": np.log2(np.concatenate([one["length"] for one in seen])),
        }
        for name, values in streams.items():
            detector = make()
            for number, value in enumerate(values.tolist()):
                detector.update(value)
                if not detector.drift_detected:
                    continue
                if world.shift == "none" or number < world.shift_at:
                    false += 1
                elif name != world.shift:
                    wrong += 1
                elif delay is None:
                    delay = number - world.shift_at
        return false, delay, wrong

    return detect


@dataclass
class Row:
    """Of one detector: false alarms, falls found, those that were named right, and the delays in events."""

    false: int = 0
    found: int = 0
    named: int = 0
    delays: list[int] = field(default_factory=list)


def quality_table(runs: int) -> None:
    """A model that loses 30 % of its hits, and a demand that does, after 100,000 outcomes."""
    normal = {"model": (0.10, 0.06, 0.03), "demand": (0.10, 0.06, 0.03), "none": (0.10, 0.06, 0.03)}
    after = {"model": (0.07, 0.06, 0.021), "demand": (0.07, 0.042, 0.021), "none": (0.10, 0.06, 0.03)}
    print(f"\n{'hit rate .10, falls by 30 %':34}{'false':>7}{'found':>9}{'named':>9}{'median events':>15}{'worst':>8}")
    for case in ("none", "model", "demand"):
        rows = {name: Row() for name in ("Freshet", "ADWIN on hits", "Page-Hinkley on hits")}
        for seed in range(runs):
            rng = np.random.default_rng(seed)
            blocks = []
            for model, popular, both in (normal[case], after[case]):
                chances = [both, model - both, popular - both, 1 - model - popular + both]
                blocks.append(rng.choice(4, 100_000, p=chances))
            outcomes = np.concatenate(blocks)
            watch, row, known = QualityMonitor(QualityConfig()), rows["Freshet"], False
            for end in range(100, 200_001, 100):
                counted = np.bincount(outcomes[end - 100 : end], minlength=4).tolist()
                verdict = watch.add(PairedCounts(*counted))
                if verdict in ("model", "demand") and not known:
                    known = True
                    if case == "none" or end <= 100_000:
                        row.false += 1
                        watch.reset()
                        known = False
                        continue
                    row.found += 1
                    row.named += verdict == case
                    row.delays.append(end - 100_000)
            hits = (outcomes < 2).tolist()
            for name, detector in (("ADWIN on hits", ADWIN()), ("Page-Hinkley on hits", PageHinkley())):
                row, known = rows[name], False
                for number, hit in enumerate(hits):
                    detector.update(float(hit))
                    if detector.drift_detected and not known:
                        if case == "none" or number < 100_000:
                            row.false += 1
                        else:
                            known = True
                            row.found += 1
                            row.delays.append(number - 100_000)
        for name, row in rows.items():
            what = {"none": "nothing", "model": "model only", "demand": "demand"}[case]
            middle = f"{statistics.median(row.delays):,.0f}" if row.delays else "-"
            worst = f"{max(row.delays):,}" if row.delays else "-"
            told = f"{row.named}/{row.found}" if name == "Freshet" and case != "none" else "-"
            share = "-" if case == "none" else f"{row.found}/{runs}"
            print(f"{what:11} {name:22}{row.false:>7}{share:>9}{told:>9}{middle:>15}{worst:>8}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    runs = parser.parse_args().runs
    detectors = {
        "Freshet": monitor,
        "PSI >= 0.1 (Evidently)": psi_constant,
        "ADWIN (river)": river(ADWIN),
        "Page-Hinkley (river)": river(PageHinkley),
    }
    results = {name: Result() for name in detectors}
    started = time.perf_counter()
    for shift in SHIFTS:
        world = DriftWorld(shift=shift)
        for seed in range(runs):
            seen = list(observations(world, seed))
            for name, detect in detectors.items():
                false, delay, wrong = detect(world, seen)
                result = results[name]
                result.false[shift] += false
                result.quiet_runs += shift == "none" and false == 0
                result.misnamed[shift] += wrong > 0
                if delay is not None:
                    result.delays[shift].append(delay)
    print(f"{platform.machine()}, {platform.processor() or platform.system()}, {time.perf_counter() - started:.0f} s")
    print(f"\n{runs} stationary runs of 200,000 events, and {runs} of each shift after 100,000")
    print(f"{'':24}{'false alarms':>14}{'quiet runs':>12}")
    for name, result in results.items():
        print(f"{name:24}{result.false['none']:>14,}{result.quiet_runs:>9}/{runs}")
    print(f"\n{'shift':16}{'detector':24}{'found':>8}{'also named wrongly':>20}{'median events':>15}{'worst':>9}")
    for shift in SHIFTS[1:]:
        for name, result in results.items():
            delays = result.delays[shift]
            middle = statistics.median(delays) if delays else math.nan
            worst = max(delays) if delays else math.nan
            print(
                f"{shift:16}{name:24}{len(delays):>5}/{runs}{result.misnamed[shift]:>17}/{runs}"
                f"{middle:>15,.0f}{worst:>9,.0f}"
            )
    quality_table(runs)


if __name__ == "__main__":
    main()
