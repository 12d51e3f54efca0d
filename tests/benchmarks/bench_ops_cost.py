"""What being watched costs an updater and a scorer.

First microseconds per event of each part alone, in batches as they come from Kafka. Then the workers' own code, without
Kafka, watched and not watched in turns. For the updater that is the whole comparison: Kafka's share would only make the
difference smaller. What a scorer does for watching is bounded by the clock, so its clock here is that of a process at
its limit: one on a real Kafka works off a backlog first, and what watching adds is put in relation to what it spends.

    python tests/benchmarks/bench_ops_cost.py [--rounds 3] [--refreshes 30000]
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).parents[2]))

from model.config import preset
from model.items import ItemIndex
from model.learner import Learner
from ops.local.broker import LocalBroker
from ops.metrics import ScorerMetrics, UpdaterMetrics
from ops.monitor.beyond_accuracy import ItemPopularity, ListWindow
from ops.monitor.bins import ItemBins
from ops.monitor.quality import OutcomeMonitor, QualityConfig
from ops.monitor.signals import ScoreBins, ScorerSignals, UpdaterSignals
from ops.monitor.windows import WindowConfig, WindowCounter
from state import codec
from state.history import EMPTY
from state.store import Store, StoreConfig
from stream.clients.connection import KafkaConnection
from stream.registry.reference import Reference
from stream.scorer.config import ListConfig, ListSignalsConfig
from stream.scorer.models import Models
from stream.scorer.requests import Request
from stream.scorer.scoring import Scoring
from stream.scorer.shown_lists import Offsets, ShownLists
from stream.updater.merging import Outcomes, apply, decode_batch
from stream.wire.records import Limits, NewInteraction, Refresh
from stream.wire.topics import TopicPlan
from tests.benchmarks.bench_stream_scorer import ITEMS, USERS, backlog, refresh

EVENTS, BATCH, REFRESHES = 50_000, 500, 256
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
    watch = OutcomeMonitor(QualityConfig())
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


class Unwatched:
    """Stands where signals stand, and does nothing; nobody is judged or shadowed."""

    window_signals: "Unwatched"

    def __init__(self) -> None:
        self.window_signals = self

    def __getattr__(self, name: str) -> Callable[..., tuple[()]]:
        return lambda *arguments, **named: ()


def updater(folder: Path, watched: bool) -> Callable[[], float]:
    """Decode, merge, encode and store batches of events; note them when `watched`."""
    rng = np.random.default_rng(0)
    counter = WindowCounter("u", WindowConfig())
    signals = UpdaterSignals(counter, UpdaterMetrics(CollectorRegistry())) if watched else Unwatched()
    store, histories, limits = Store(folder, {}), dict[bytes, bytes](), Limits()
    clock = [NOW]

    def work() -> None:
        for number in range(20):
            records = []
            for offset in range(BATCH):
                clock[0] += 5
                who, item = f"u{rng.integers(USERS)}", f"i{rng.integers(ITEMS)}"
                value = {"user": who, "item": item, "timestamp": clock[0], "event": "view"}
                record = SimpleNamespace(topic="t", partition=0, offset=offset, timestamp=clock[0])
                record.key, record.value = who.encode(), json.dumps(value).encode()
                records.append(record)
            started = time.thread_time()
            arrivals, rejected = decode_batch(records, limits)
            outcomes, dirty = Outcomes(), dict[bytes, bytes]()
            for user, events in arrivals.items():
                stored = histories.get(user)
                before = EMPTY if stored is None else codec.decode(stored)
                change = apply(before, events, 200, outcomes)
                if change is None:
                    continue
                dirty[user] = histories[user] = codec.encode(change.history)
                Refresh("event", change.arrived_ms, tuple(change.new), dirty[user]).encode()
                times_ms = [event.time_ms for event in change.new]
                signals.user(user, before.newest_ms, times_ms, len(change.history.items), change.kinds)
            signals.feed(clock[0], duplicates=outcomes.duplicate, dead_letters=len(rejected))
            store.write(dirty)
            if number % 10 == 9:  # at a checkpoint
                signals.flush()
            spent[0] += time.thread_time() - started

    spent = [0.0]

    def timed() -> float:
        spent[0] = 0.0
        work()
        return spent[0]

    return timed


UNWATCHED = ListSignalsConfig(judged_per_second=0, shadow_per_second=0, figures_share=0)


def scorer_process(rounds: int, refreshes: int) -> float:
    """Microseconds of CPU that a whole scorer process spends on a refresh, not watched."""
    options = ("--judged-per-second", "0", "--shadow-per-second", "0", "--figures-share", "0")
    taken = []
    with LocalBroker() as broker, tempfile.TemporaryDirectory() as folder:
        connection = KafkaConnection(broker.bootstrap_servers)
        for number in range(rounds):
            plan = TopicPlan(prefix=f"alone-{number}-")
            done = backlog(connection, plan, Path(folder) / plan.prefix, refreshes, options)
            taken.append(1e6 * done.cpu_seconds / done.refreshes)
    return statistics.median(taken)


def scorer(spent_us: float) -> Callable[[Path, bool], Callable[[], float]]:
    """Rank batches of refreshes, each of which takes `spent_us` of the clock, and note what was shown."""
    rng = np.random.default_rng(0)
    index = ItemIndex([f"i{number}" for number in range(ITEMS)])
    live, previous = (
        Learner.fresh(preset("stream"), index, seed=seed, device=torch.device("cpu")).recommender(f"v{seed}")
        for seed in range(2)
    )
    refreshes = [refresh(user, NOW, rng) for user in range(USERS)]
    histories = [codec.decode(one.history) for one in refreshes]
    reference = Reference.fit("v0", histories, np.array([[1.0, 0.5]] * 9), None)

    def make(folder: Path, watched: bool) -> Callable[[], float]:
        lists, clock, offset = ShownLists(folder, StoreConfig()), [NOW / 1000], [0]
        lists.open(0, {}, 0, 0, 1_000, NOW).reached(0, NOW)
        config = ListConfig(signals=ListSignalsConfig() if watched else UNWATCHED)
        scoring = Scoring(config, lists, ScorerMetrics(CollectorRegistry()), lambda: clock[0])
        if watched:
            scoring.models = Models(live=live, previous=previous, reference=reference)
        else:
            scoring.models = Models(live=live)
            scoring.signals = scoring._judge._signals = scoring._maker._signals = Unwatched()  # type: ignore[assignment]

        def timed() -> float:
            spent = 0.0
            for _ in range(8):
                batch = []
                for user in rng.choice(USERS, REFRESHES, False).tolist():
                    new = (NewInteraction(f"i{rng.integers(ITEMS)}", int(clock[0] * 1000), False),)
                    offset[0] += 1
                    given = Refresh("event", int(clock[0] * 1000), new, refreshes[user].history)
                    batch.append((offset[0], b"u%d" % user, given.encode()))
                started = time.thread_time()
                requests = [Request.decode(0, *one) for one in batch]
                scored = scoring.score(requests)
                answers = [*scored.answers, *scoring.answer_canary(scored.canary_users)]
                first = batch[0][0]
                users = {answer.request.user: first + place for place, answer in enumerate(answers)}
                ranges = {0: [(first, first + len(answers))]}
                scoring.delivered(answers, scored.before, Offsets(users, ranges))
                spent += time.thread_time() - started
                clock[0] += len(batch) * spent_us / 1e6
            started = time.thread_time()
            scoring.signals.export()
            return spent + time.thread_time() - started

        return timed

    return make


def in_turns(make: Callable[[Path, bool], Callable[[], float]], rounds: int = 25) -> tuple[float, float, float]:
    """(seconds watched, seconds not watched, share added), the medians of rounds that alternate."""
    with tempfile.TemporaryDirectory() as folder:
        on, off = make(Path(folder) / "on", True), make(Path(folder) / "off", False)
        on(), off()
        pairs = [(on(), off()) for _ in range(rounds)]
    watched, alone = (statistics.median(times) for times in zip(*pairs, strict=True))
    return watched, alone, statistics.median(a / b for a, b in pairs) - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of the scorer on Kafka")
    parser.add_argument("--refreshes", type=int, default=30_000, help="in the backlog of each")
    options = parser.parse_args()
    scorer_detectors()  # imports river
    print(f"{platform.machine()}, {os.cpu_count()} cores; median of 5, microseconds per event")
    for name, work in (
        ("updater: windows and histograms", updater_notes),
        ("scorer: windows", scorer_notes),
        ("scorer: detectors", scorer_detectors),
        ("scorer: figures of every list of 20", scorer_lists),
    ):
        print(f"{name:40}{microseconds(work):8.2f}")
    watched, alone, added = in_turns(updater)
    events = 20 * BATCH
    print(f"updater: {events / alone:,.0f} events/s alone, {events / watched:,.0f} watched: {added:+.1%}")
    whole = scorer_process(options.rounds, options.refreshes)
    watched, alone, added = in_turns(scorer(whole))
    own = 1e6 * alone / (8 * REFRESHES)
    print(f"scorer: {whole:,.0f} us of CPU per refresh on Kafka, {own:,.0f} of them its own code", end="; ")
    print(f"watched {own * added:+.1f} us: {own * added / whole:+.1%}")


if __name__ == "__main__":
    main()
