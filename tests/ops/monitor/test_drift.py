"""The drift monitor is silent on a stationary stream, names what changed, and is the same for any number of workers."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.monitor.bins import ItemBins
from ops.monitor.drift import compare, design_effect, jensen_shannon, ks_on_bins, largest_move, psi
from ops.monitor.drift_monitor import DriftConfig, DriftMonitor, Evaluation
from ops.monitor.windows import MergedWindow, WindowConfig, WindowCounter, WindowMerge, WindowRecord
from tests.support.drift_world import NAMED, WINDOW_MS, DriftWorld, Shift, windows

counts = st.lists(st.integers(0, 10_000), min_size=2, max_size=20).filter(any)


# -- statistics --------------------------------------------------------------------------------------------------------


@given(counts, st.data())
def test_statistics_are_symmetric_bounded_and_zero_for_equal_shares(x: list[int], data: st.DataObject) -> None:
    y = data.draw(st.lists(st.integers(0, 10_000), min_size=len(x), max_size=len(x)).filter(any))
    a, b = np.array(x), np.array(y)
    assert psi(a, b) == pytest.approx(psi(b, a)) and psi(a, b) >= 0
    assert 0 <= jensen_shannon(a, b) <= 1 and 0 <= ks_on_bins(a, b) <= 1 + 1e-9
    assert largest_move(a, b) <= ks_on_bins(a, b) * 2 + 1e-9
    assert psi(a, a) == 0 and jensen_shannon(a, a) < 1e-7 and largest_move(a, a) == 0


def test_noise_is_as_large_as_it_is_said_to_be() -> None:
    """PSI of two samples of one distribution: its mean is what `excess` subtracts, its tail what `critical` says."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 66)
    share /= share.sum()
    found = [compare(rng.multinomial(2_000, share), rng.multinomial(20_000, share), alpha=0.01) for _ in range(2_000)]
    assert abs(np.mean([one.excess for one in found])) < 0.002
    assert 0.003 < np.mean([one.significant for one in found]) < 0.02


def test_the_design_effect_measures_how_events_cluster() -> None:
    rng = np.random.default_rng(0)
    tastes = rng.dirichlet(np.full(10, 20.0), (200, 100))  # [windows, sessions, bins]
    one_each = np.array([[rng.multinomial(1, taste) for taste in window] for window in tastes]).sum(axis=1)
    in_tens = np.array([[rng.multinomial(10, taste) for taste in window] for window in tastes]).sum(axis=1)
    kish = 1 + (10 - 1) / (10 * 20 + 1)
    assert design_effect(one_each) == pytest.approx(1.0, abs=0.1)
    assert design_effect(in_tens) == pytest.approx(kish, abs=0.15)


def test_a_long_tail_without_drift_is_not_severe() -> None:
    """Per-item PSI of two samples of one and the same Zipf is ten times the severe line; in bins it is noise."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 10_001)
    share /= share.sum()
    x, y = rng.multinomial(10_000, share), rng.multinomial(100_000, share)
    bins = ItemBins.fit({str(item): int(count) for item, count in enumerate(y) if count})
    first, second = (bins.count({str(item): int(n) for item, n in enumerate(sample)})[:-1] for sample in (x, y))
    assert compare(first, second).excess < 0.1
    # Shares by item, zeros replaced by a tiny number, as libraries do it.
    p, q = (np.where(n > 0, n / n.sum(), n[n > 0].min() / n.sum() / 1e6) for n in (x, y))
    assert ((p - q) * np.log(p / q)).sum() > 2.5


# -- the monitor -------------------------------------------------------------------------------------------------------


def evaluations(world: DriftWorld, seed: int) -> Iterator[tuple[int, Evaluation]]:
    monitor = DriftMonitor(DriftConfig())
    for number, window in enumerate(windows(world, seed)):
        for evaluation in monitor.update(window):
            yield number, evaluation


def test_a_stationary_stream_never_drifts() -> None:
    world = DriftWorld()
    judged = [one for seed in range(3) for _, one in evaluations(world, seed)]
    assert sum(one.state >= 0 for one in judged) > 3_000
    assert [one for one in judged if one.state == 2] == []


@pytest.mark.parametrize("shift", ["popularity", "unknown_items", "history_length"])
@pytest.mark.parametrize("seed", range(2))
def test_what_changed_is_named_within_two_windows(shift: Shift, seed: int) -> None:
    world = DriftWorld(shift=shift, events=160_000)
    seam = world.shift_at // world.window_events
    windows_after = 0
    drifted = set()
    for number, one in evaluations(world, seed):
        if one.reference != "training":
            continue
        if one.entered == "drift":
            drifted.add(one.signal)
            if one.signal == NAMED[shift]:
                assert windows_after <= 2
        # A window that began before the seam is of both worlds; the next two are of the new one.
        if one.signal == NAMED[shift] and number >= seam and one.state >= 0:
            windows_after += 1
    assert drifted == {NAMED[shift]}


def test_a_promotion_takes_the_changed_stream_for_normal_and_the_baseline_does_not() -> None:
    world = DriftWorld(shift="history_length", events=200_000)
    monitor = DriftMonitor(DriftConfig())
    for window in windows(world, 0):
        monitor.update(window)
        if monitor.states()["history_length"] == 2:
            break
    monitor.promoted()
    later = [one for window in windows(replace(world, shift_at=0), 1) for one in monitor.update(window)]
    assert {one.state for one in later if one.signal == "history_length" and one.reference == "training"} <= {-1, 0}


def test_a_few_events_say_nothing() -> None:
    monitor = DriftMonitor(DriftConfig())
    for window in windows(DriftWorld(events=60_000), 0):
        monitor.update(window)
    start_ms = 10**9 - 10**9 % WINDOW_MS
    tiny = [0] * 9 + [2]
    found = []
    for number in range(100):
        window = MergedWindow(start_ms + number * WINDOW_MS, {("history_length", ""): np.array(tiny)}, {}, {})
        found += monitor.update(window)
    assert found and {one.state for one in found} == {-1}


def test_a_broken_feed_is_never_a_reference() -> None:
    monitor = DriftMonitor(DriftConfig())
    broken, sound = (np.array([0] * 9 + [5_000]), np.array([5_000] + [0] * 9))
    for number in range(40):
        monitor.update(MergedWindow(number * WINDOW_MS, {("history_length", ""): broken}, {}, {}), clean=False)
    for number in range(40, 80):
        found = monitor.update(MergedWindow(number * WINDOW_MS, {("history_length", ""): sound}, {}, {}))
    assert [one.state for one in found if one.reference == "training"] == [0]


def test_counts_of_another_epoch_are_never_compared_with_this_one() -> None:
    monitor = DriftMonitor(DriftConfig())
    first, second = np.array([5_000] + [0] * 9), np.array([0] * 9 + [5_000])
    monitor.give_reference("score_top1", "v2", second)
    states = []
    for number in range(40):
        epoch, table = ("v1", first) if number < 20 else ("v2", second)
        window = MergedWindow(number * WINDOW_MS, {("score_top1", epoch): table}, {}, {})
        states += [one.state for one in monitor.update(window)]
    assert 2 not in states and states[-2] == 0


# -- windows -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 9_999), st.integers(0, 3)), min_size=1, max_size=60), st.integers(1, 4))
def test_one_worker_counts_the_same_as_several(events: list[tuple[int, int]], workers: int) -> None:
    config = WindowConfig(window_ms=1000, grace_share=0)

    def merged(counters: list[WindowCounter]) -> list[tuple[int, dict]]:
        merge = WindowMerge(config)
        for number, (time_ms, where) in enumerate(events):
            counter = counters[number % len(counters)]
            counter.add("signal", [time_ms], [where], 4, epoch="e")
            counter.total("events", time_ms)
            if number % 7 == 0:  # running totals replace each other, whatever arrives twice
                records = counter.take()
                merge.add_all(records)
                merge.add_all(WindowRecord.decode(record.encode()) for record in records)
        for counter in counters:
            merge.add_all(counter.take())
        found = merge.open()
        return [(w.start_ms, {k: v.tolist() for k, v in w.counts.items()} | dict(w.totals)) for w in found]

    # A grace as long as the stream, so that no window is forgotten before its last event.
    config = WindowConfig(window_ms=1000, grace_share=100)
    alone = merged([WindowCounter("w", config)])
    shared = merged([WindowCounter(f"w{number}", config) for number in range(workers)])
    assert shared == alone
    assert sum(sum(one["signal", "e"]) for _, one in alone) == len(events)


def test_a_window_waits_for_its_workers_but_not_for_a_dead_one() -> None:
    merge = WindowMerge(WindowConfig(window_ms=1000, grace_share=0.1))

    def record(worker: str, start_ms: int, newest_ms: int) -> WindowRecord:
        return WindowRecord(worker, start_ms, newest_ms, {"signal": [1, 0]}, {}, {})

    merge.add_all([record("a", 0, 1100), record("b", 0, 900)])
    assert merge.close() == []
    merge.add(record("b", 1000, 1100))
    assert [window.counts["signal", ""].tolist() for window in merge.close()] == [[2, 0]]
    merge.add_all([record("a", 1000, 2100), record("a", 2000, 3099)])
    assert merge.close() == []  # b has not come past the window's end
    merge.add(record("a", 3000, 3100))
    assert [window.start_ms for window in merge.close()] == [1000]  # b is a whole window behind
    merge.add(record("b", 1000, 1900))
    assert merge.late_records == 1


def test_records_on_their_way_are_waited_for_by_the_clock() -> None:
    merge = WindowMerge(WindowConfig(window_ms=1000, grace_share=0.1, patience_ms=5_000))

    def record(worker: str, start_ms: int, newest_ms: int) -> WindowRecord:
        return WindowRecord(worker, start_ms, newest_ms, {"signal": [1, 0]}, {}, {})

    merge.add_all([record("a", 0, 1100), record("b", 0, 1100)])
    assert [window.start_ms for window in merge.close(0)] == [0]
    merge.add_all([record("a", 1000, 9_000), record("a", 2000, 9_000)])
    assert merge.close(10_000) == [] and merge.close(14_999) == []
    merge.add_all([record("b", 1000, 9_000)])
    windows = merge.close(14_999)
    assert [window.counts["signal", ""].tolist() for window in windows] == [[2, 0], [1, 0]]
    merge.add_all([record("b", 9_000, 9_500), record("a", 9_000, 20_000)])
    assert merge.close(20_000) == [] and merge.close(24_999) == []
    assert [window.start_ms for window in merge.close(25_000)] == [9_000]  # b is silent for too long
    assert merge.late_records == 0


def test_the_busiest_user_is_found_among_many() -> None:
    rng = np.random.default_rng(0)
    counter = WindowCounter("w", WindowConfig())
    for _ in range(100):
        counter.users(0, {b"flood": 20} | {b"u%d" % rng.integers(100_000): 1 for _ in range(180)})
    peak = counter.take()[0].peaks["user_events"]
    assert 2_000 - 20_000 / 64 <= peak <= 2_000
