"""What workers note of each event arrives in the windows and in the metrics, whole."""

from prometheus_client import CollectorRegistry

from ops.metrics import ScorerMetrics, UpdaterMetrics
from ops.monitor.bins import ItemBins, history_length_bin, inter_arrival_bin
from ops.monitor.data_quality import DataQuality, DataQualityConfig
from ops.monitor.quality import PairedCounts
from ops.monitor.signals import ScoreBins, ScorerSignals, UpdaterSignals, paired_counts
from ops.monitor.windows import WindowConfig, WindowCounter, WindowMerge

NOON = 1_700_000_100_000


def test_an_updater_counts_users_lengths_pace_and_kinds() -> None:
    registry = CollectorRegistry()
    signals = UpdaterSignals(WindowCounter("u", WindowConfig()), UpdaterMetrics(registry))
    signals.user(b"new", 0, [NOON, NOON + 5_000], items_after=2, event_types=["view", "buy"])
    signals.user(b"old", NOON - 60_000, [NOON], items_after=40, event_types=["view"])
    signals.feed(NOON, duplicates=3, late=1, dead_letters=2, misdated=1)
    signals.flush()
    (record,) = signals.windows.take()
    assert record.counts["new_user_rate"] == [2, 1]
    lengths, gaps = record.counts["history_length"], record.counts["inter_arrival"]
    assert (lengths[history_length_bin(2)], lengths[history_length_bin(40)], sum(lengths)) == (1, 1, 2)
    assert (gaps[inter_arrival_bin(5_000)], gaps[inter_arrival_bin(60_000)], sum(gaps)) == (1, 1, 2)
    assert sum(record.counts["event_type"]) == 3 and max(record.counts["event_type"]) == 2
    assert record.totals == {"events": 7, "duplicates": 3, "dead_letters": 2, "misdated": 1}
    assert record.peaks == {"user_events": 2}
    assert registry.get_sample_value("freshet_user_events_total", {"status": "new"}) == 1
    assert registry.get_sample_value("freshet_history_items_count") == 2
    assert registry.get_sample_value("freshet_inter_arrival_seconds_sum") == 65


def test_a_clock_that_jumps_back_is_a_fault_of_the_feed() -> None:
    windows = WindowCounter("u", WindowConfig())
    signals = UpdaterSignals(windows, UpdaterMetrics(CollectorRegistry()))
    for number in range(900):
        signals.user(b"u%d" % number, 0, [NOON], items_after=1)
    signals.flush()
    for number in range(100):
        signals.user(b"v%d" % number, 0, [NOON - 10 * 86_400_000], items_after=1)
    signals.flush()
    newest = [record for record in windows.take() if record.start_ms == NOON - NOON % 900_000]
    merge = WindowMerge(WindowConfig())
    merge.add_all(newest)
    assert set(DataQuality(DataQualityConfig()).update(merge.open()[0])) == {"clock"}


def test_a_scorer_counts_items_scores_and_pairs_under_their_model() -> None:
    signals = ScorerSignals(WindowCounter("s", WindowConfig()), ScorerMetrics(CollectorRegistry()))
    signals.event("before any model", NOON, in_vocabulary=False)
    bins = ItemBins.fit({"a": 2, "b": 1}, top=1, tail=1)
    signals.follow("m1", bins, "b1", ScoreBins(top1=(0.5,), margin=(0.1,)))
    signals.event("a", NOON, in_vocabulary=True)
    signals.event("new", NOON, in_vocabulary=False, first_met=True)
    signals.ranked(NOON, best=0.7, last=0.1)
    signals.outcome(NOON, hit=True, popularity_hit=False)
    signals.outcome(NOON, hit=False, popularity_hit=True, previous_hit=True)
    signals.follow("m2", bins, "b1", ScoreBins(top1=(0.5,), margin=(0.1,)))
    signals.ranked(NOON, best=0.4, last=0.35)
    signals.flush()
    (record,) = signals.windows.take()
    assert record.counts["item_popularity b1"] == [1, 0, 1]
    assert record.counts["unknown_item_rate"] == [1, 1]
    assert record.counts["score_top1 m1"] == [0, 1] and record.counts["score_top1 m2"] == [1, 0]
    assert record.counts["score_margin m1"] == [0, 1] and record.counts["score_margin m2"] == [1, 0]
    assert paired_counts(record.counts["against_popularity m1"]) == PairedCounts(first=1, second=1)
    assert paired_counts(record.counts["against_previous m1"]) == PairedCounts(second=1)
    assert len(record.first_met) == 1 and record.totals == {}


def test_new_items_count_in_the_windows_of_their_events_however_late_they_are_flushed() -> None:
    signals = ScorerSignals(WindowCounter("s", WindowConfig()), ScorerMetrics(CollectorRegistry()))
    signals.follow("m", ItemBins.fit({"a": 2}, top=1, tail=1), "b")
    later = NOON + WindowConfig().window_ms
    for time_ms, names in ((NOON, "xyz"), (later, "v")):
        for name in names:
            signals.event(name, time_ms, in_vocabulary=False, first_met=True)
    signals.event("a", later, in_vocabulary=True)
    signals.flush()
    assert [len(record.first_met) for record in signals.windows.take()] == [3, 1]
