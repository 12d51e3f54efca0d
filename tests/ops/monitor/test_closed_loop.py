"""From workers' events to the trainer's decisions: drift, a broken feed, a poisoned model."""

import itertools
from collections.abc import Callable
from typing import cast

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from ops.metrics import ScorerMetrics, TrainerMetrics, UpdaterMetrics
from ops.monitor.bins import ItemBins
from ops.monitor.closed_loop import ClosedLoop, ClosedLoopConfig
from ops.monitor.decisions import SkipRound, StartRound
from ops.monitor.loop_state import LoopState
from ops.monitor.probation import RollBack
from ops.monitor.quality import PairedCounts
from ops.monitor.signals import ScorerSignals, UpdaterSignals
from ops.monitor.windows import WindowConfig, WindowCounter

WINDOW_MS = 15 * 60 * 1000
START_MS = 1_700_000_100_000 - 1_700_000_100_000 % WINDOW_MS
EVENTS = 2_500  # per window


class Stream:
    """An updater and a scorer that note a stationary stream window by window, and the trainer's loop over both."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.registry = CollectorRegistry()
        self.loop = ClosedLoop(ClosedLoopConfig(), TrainerMetrics(self.registry), clock=lambda: 1.0)
        self.updater = UpdaterSignals(WindowCounter("updater", WindowConfig()), UpdaterMetrics(CollectorRegistry()))
        self.scorer = ScorerSignals(WindowCounter("scorer", WindowConfig()), ScorerMetrics(CollectorRegistry()))
        self.bins = ItemBins.fit({f"i{number}": 300 - number for number in range(300)})
        self.number = 0

    def promote(self, version: str) -> None:
        self.loop.moved(self.loop.intend("promote", version))
        self.scorer.follow(version, self.bins, "bins")

    def window(
        self,
        *,
        item: str = "",
        length: int = 1,
        duplicates: int = 0,
        hit: float = 0.1,
        previous: float | None = None,
        catalogue: int = 300,
    ) -> list:
        start = START_MS + self.number * WINDOW_MS
        self.number += 1
        times = np.sort(self.rng.integers(start, start + WINDOW_MS, EVENTS)).tolist()
        lengths = (length * np.maximum(self.rng.geometric(0.1, EVENTS), 1)).tolist()
        for place, time_ms in enumerate(times):
            user = b"u%d" % self.rng.integers(5_000)
            self.updater.user(user, time_ms - int(self.rng.exponential(1e7)), [time_ms], lengths[place], ["view"])
            self.scorer.event(item or f"i{min(int(self.rng.exponential(60)), 299)}", time_ms, True)
            if place % 10 == 0:
                shown = [f"i{n}" for n in self.rng.permutation(catalogue)[:20]]
                self.scorer.shown(time_ms, self.loop.decisions.state.live, shown)
            before = None if previous is None else bool(self.rng.random() < previous)
            self.scorer.outcome(time_ms, bool(self.rng.random() < hit), bool(self.rng.random() < 0.06), before)
        self.updater.feed(times[-1], duplicates=duplicates)
        actions = []
        for signals in (self.updater, self.scorer):
            signals.flush()
            for record in signals.windows.take():
                self.loop.add(record.encode())
        actions += self.loop.turn(new_events=EVENTS * self.number)
        return actions

    def windows(self, count: int, **changes: object) -> list:
        return [action for _ in range(count) for action in self.window(**changes)]  # type: ignore[arg-type]


@pytest.fixture
def stream() -> Stream:
    """A stationary day; the second of two models is live and past its probation."""
    stream = Stream()
    stream.promote("m1")
    stream.promote("m2")
    assert stream.windows(30) == []
    return stream


def test_a_real_drift_gets_a_round_and_is_absorbed(stream: Stream) -> None:
    actions = stream.windows(4, length=3)
    assert actions == [StartRound("drift", False, "history_length")]
    assert stream.registry.get_sample_value(
        "freshet_drift_state", {"signal": "history_length", "reference": "training"}
    )
    stream.loop.round_ended(60)
    stream.promote("m3")
    assert stream.windows(8, length=3) == []


def test_a_broken_feed_freezes_training_and_the_loop_is_back_by_itself(stream: Stream) -> None:
    state = {"check": "duplicates"}
    assert stream.windows(3, length=3, duplicates=2_000) == []
    stream.loop.decisions.request("schedule")
    actions = stream.windows(1, length=3, duplicates=2_000)
    assert [(type(action), action.gate) for action in actions] == [(SkipRound, "data_quality")]
    assert stream.registry.get_sample_value("freshet_data_quality_state", state) == 1
    assert stream.loop.drift.states()["history_length"] == 2
    assert stream.windows(8) == []  # the drift that the fault brought is never learnt
    assert stream.registry.get_sample_value("freshet_data_quality_state", state) == 0
    stream.loop.decisions.request("schedule")
    assert stream.windows(1) == [StartRound("schedule", False, "")]


def test_a_poisoned_model_is_taken_back_and_the_second_time_promotions_freeze(stream: Stream) -> None:
    for number in (3, 4):
        stream.promote(f"m{number}")
        actions = stream.windows(6, hit=0.03, previous=0.1)
        assert isinstance(actions[0], RollBack) and actions[0].reason == "quality"
        stream.loop.moved(stream.loop.intend("roll_back", "m2"))
        stream.scorer.follow("m2", stream.bins, "bins")
        stream.windows(6)
    assert stream.loop.decisions.state.frozen
    assert stream.loop.decisions.state.quarantined == ["m3", "m4"]


def test_moved_demand_asks_for_a_round(stream: Stream) -> None:
    stream.windows(4)
    # Hits and popularity's fall together; the advantage stays.
    original = stream.rng.random
    stream.rng = cast(np.random.Generator, _Thinned(stream.rng, original))
    actions = stream.windows(10)
    assert any(isinstance(action, StartRound) and action.trigger == "quality" for action in actions)


class _Thinned:
    """Outcomes of a demand that moved: every list hits 0.6 times as often."""

    def __init__(self, rng: np.random.Generator, draw: Callable[[], float]) -> None:
        self._rng, self._draw = rng, draw

    def __getattr__(self, name: str) -> object:
        return getattr(self._rng, name)

    def random(self) -> float:
        return self._draw() / 0.6


def test_a_record_that_is_not_ours_is_counted_and_left(stream: Stream) -> None:
    stream.loop.add(b"not msgpack")
    assert stream.loop.refused == 1


def test_a_restarted_trainer_reads_the_windows_again_and_stands_where_it_stood() -> None:
    stream, records = Stream(), list[bytes]()
    add = stream.loop.add

    def noted(value: bytes) -> None:
        records.append(value)
        add(value)

    stream.loop.add = noted  # type: ignore[method-assign]
    stream.promote("m1")
    stream.windows(30)
    stream.promote("m2")
    stream.windows(20, length=3)
    stream.loop.round_ended(60)
    stream.promote("m3")
    stream.windows(3, length=3)
    before = stream.loop.decisions.state
    registry = CollectorRegistry()
    again = ClosedLoop(ClosedLoopConfig(), TrainerMetrics(registry), lambda: 1.0, LoopState.decode(before.encode()))
    again.restore(records)
    assert again.drift.states() == stream.loop.drift.states()
    assert again.now_ms == stream.loop.now_ms
    assert again.decisions.state == before  # nothing is decided again
    counted = registry.get_sample_value(
        "freshet_drift_detections_total", {"signal": "history_length", "level": "drift"}
    )
    assert counted == 0


def test_an_item_is_not_new_again_when_scorer_and_trainer_are_restarted() -> None:
    """A scorer forgets which items it met; the trainer knows it from what all scorers wrote."""
    records: list[bytes] = []
    items = [f"late{number}" for number in range(EVENTS)]

    def scorer(start: int) -> ScorerSignals:
        return ScorerSignals(WindowCounter(f"scorer@h:{start}", WindowConfig()), ScorerMetrics(CollectorRegistry()))

    def trainer() -> ClosedLoop:
        minutes = itertools.count(0, 60)  # it waits for no window
        return ClosedLoop(ClosedLoopConfig(), TrainerMetrics(CollectorRegistry()), clock=lambda: float(next(minutes)))

    def broken(loop: ClosedLoop, number: int, scorer: ScorerSignals, met: list[str]) -> bool:
        """Is a feed in which this scorer meets these items in this window, and the next windows follow, broken?"""
        updater = UpdaterSignals(WindowCounter("updater@h:1", WindowConfig()), UpdaterMetrics(CollectorRegistry()))
        time_ms = START_MS + number * WINDOW_MS + WINDOW_MS // 2
        for event in range(EVENTS):
            updater.user(b"u%d" % (event % 500), time_ms, [time_ms], 3, ["view"])
        scorer.delivered(time_ms, 0.01)
        for item in met:
            scorer.event(item, time_ms, in_vocabulary=False, first_met=True)
        for signals in (updater, scorer):
            signals.flush()
            for record in signals.windows.take():
                records.append(record.encode())
                loop.add(records[-1])
        loop.turn(0)
        return "items" in loop.decisions.faults.failed_checks

    def meets_all(loop: ClosedLoop, scorer: ScorerSignals) -> bool:
        return any(broken(loop, number, scorer, items if number == 20 else []) for number in range(20, 25))

    loop, first = trainer(), scorer(1)
    step = EVENTS // 20  # half of what a sound feed may bring
    met = [items[number * step : (number + 1) * step] for number in range(20)]
    assert not any(broken(loop, number, first, some) for number, some in enumerate(met))
    before = list(records)
    again = trainer()
    again.restore(before)
    assert not meets_all(again, scorer(2))
    assert meets_all(trainer(), scorer(3)), "of a trainer that knows nothing they are new"


def test_a_canarys_evidence_is_there_before_its_window_closes(stream: Stream) -> None:
    stream.loop.moved(stream.loop.intend("begin_canary", "m3"))
    time_ms = START_MS + stream.number * WINDOW_MS
    for hit, live_hit in ((True, False), (True, False), (False, True), (False, False)):
        stream.scorer.canary(time_ms, "m3", hit, live_hit)
    stream.scorer.canary(time_ms, "an earlier canary", True, False)
    stream.scorer.flush()
    for record in stream.scorer.windows.take():
        stream.loop.add(record.encode())
    assert stream.loop.canary.counts(stream.loop.merge.open()) == PairedCounts(first=2, second=1, neither=1)
    stream.window()
    stream.window()
    assert stream.loop.canary.counts(stream.loop.merge.open()) == PairedCounts(first=2, second=1, neither=1)
    stream.loop.moved(stream.loop.intend("end_canary", "m3"))
    assert stream.loop.canary.counts(stream.loop.merge.open()) == PairedCounts()


def test_a_worker_of_another_release_does_not_end_the_trainer(stream: Stream) -> None:
    counter = WindowCounter("other", WindowConfig())
    counter.add("history_length", [START_MS + stream.number * WINDOW_MS], [3], size=99)
    for record in counter.take():
        stream.loop.add(record.encode())
    stream.windows(3)
    assert stream.loop.drift.states()["history_length"] == 0


@pytest.mark.parametrize("stated", [True, False], ids=["by length", "by its start, as records of old"])
def test_windows_of_another_length_are_named_once_and_left_out(
    stream: Stream, stated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    counter = WindowCounter("updater@other", WindowConfig(window_ms=WINDOW_MS // 3))
    start_ms = START_MS + stream.number * WINDOW_MS
    for third in range(3):
        times = [start_ms + third * WINDOW_MS // 3 + 1] * 100_000
        counter.add("history_length", times, [9] * len(times), 10)
        counter.add_total("events", times)
    records = [record if stated else msgspec.structs.replace(record, window_ms=0) for record in counter.take()]
    for record in records:
        stream.loop.add(record.encode())
    refused = 3 if stated else 2  # a third of them begins where our windows do
    assert stream.loop.refused == refused
    reasons = {"reason": "window_length"}
    assert stream.registry.get_sample_value("freshet_monitor_records_refused_total", reasons) == refused
    named = [message for message in caplog.messages if "--window-seconds" in message]
    assert len(named) == 1 and named[0].startswith("updater@other counts windows of ")
    if stated:
        stream.windows(3)
        assert stream.loop.drift.states()["history_length"] == 0
        assert not stream.loop.decisions.faults.failed_checks


def test_a_model_that_shows_everybody_the_same_few_items_is_taken_back(stream: Stream) -> None:
    stream.promote("narrow")
    back = stream.windows(1, catalogue=40)
    assert back == [
        RollBack("coverage", "its lists are spread over about 40 items, before the swap over 292")
    ]  # hashes collide


def test_a_model_that_shows_somewhat_fewer_items_stays(stream: Stream) -> None:
    stream.promote("narrower")
    assert stream.windows(2, catalogue=200) == []


def test_lists_of_the_model_before_say_nothing_about_the_one_that_is_live(stream: Stream) -> None:
    stream.promote("m3")
    stream.scorer.shown(START_MS + stream.number * WINDOW_MS, "m2", ["i1"] * 10_000)
    assert stream.windows(2) == []
