"""What noting events costs an updater and a scorer: microseconds per event, in batches as they come from Kafka.

python tests/benchmarks/bench_ops_cost.py
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).parents[2]))

from ops.beyond_accuracy import ItemPopularity, ListWindow
from ops.bins import ItemBins
from ops.metrics import ScorerMetrics, UpdaterMetrics
from ops.quality import OutcomeWatch, QualityConfig
from ops.signals import ScoreBins, ScorerSignals, UpdaterSignals
from ops.windows import WindowConfig, WindowCounter

EVENTS, BATCH = 50_000, 500
NOW = 1_700_000_000_000


def updater_notes() -> None:
    metrics = UpdaterMetrics(CollectorRegistry())
    signals = UpdaterSignals(WindowCounter("u", WindowConfig()), metrics)
    users = [b"u%d" % (number % 3000) for number in range(EVENTS)]
    for number, user in enumerate(users):
        signals.user(user, NOW - 60_000, (NOW + number,), 40, ("view",))
        if number % BATCH == BATCH - 1:
            signals.feed(NOW, duplicates=3)
            signals.flush()


def scorer_notes() -> None:
    metrics = ScorerMetrics(CollectorRegistry())
    signals = ScorerSignals(WindowCounter("s", WindowConfig()), metrics)
    items = [f"i{number}" for number in range(5000)]
    signals.follow("m1", ItemBins.fit({item: 5000 - n for n, item in enumerate(items)}), "m1", ScoreBins())
    for number in range(EVENTS):
        signals.event(items[number % 5000], NOW + number, True)
        signals.ranked(NOW + number, 0.8, 0.5)
        signals.outcome(NOW + number, number % 10 == 0, number % 17 == 0)
        if number % BATCH == BATCH - 1:
            signals.flush()


def scorer_detectors() -> None:
    watch = OutcomeWatch(QualityConfig())
    for number in range(EVENTS):
        watch.update(b"u%d" % number, NOW + number, "control", number % 10 == 0)


def scorer_lists() -> None:
    items = [f"i{number}" for number in range(5000)]
    popularity = ItemPopularity.of({item: 5000 - n for n, item in enumerate(items)})
    window = ListWindow()
    shown = [[items[column] for column in row] for row in np.random.default_rng(0).integers(0, 5000, (1000, 20))]
    for number in range(EVENTS):
        window.add(b"u%d" % (number % 20_000), shown[number % 1000], popularity)


def microseconds(work: Callable[[], None]) -> float:
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) / EVENTS * 1e6


def main() -> None:
    scorer_detectors()  # imports river
    print(f"{platform.machine()}, {os.cpu_count()} cores; median of 5, microseconds per event")
    for name, work in (
        ("updater: windows and histograms", updater_notes),
        ("scorer: windows", scorer_notes),
        ("scorer: detectors", scorer_detectors),
        ("scorer: figures of every list of 20", scorer_lists),
    ):
        print(f"{name:40}{microseconds(work):8.2f}")


if __name__ == "__main__":
    main()
