"""Which items are new to a feed is known to all scorers together, over restarts, or it is not known."""

import msgspec
from prometheus_client import CollectorRegistry

from ops.labels import Check
from ops.metrics import ScorerMetrics
from ops.monitor.data_quality import DataQuality, DataQualityConfig
from ops.monitor.signals import ScorerSignals
from ops.monitor.windows import MergedWindow, WindowConfig, WindowCounter, WindowMerge, WindowRecord

CONFIG = WindowConfig(window_ms=1_000, grace_share=0)
LATE_ITEMS = [f"i{number}" for number in range(400)]


class Feed:
    """Windows of 1,000 events, and scorers that meet items in them."""

    def __init__(self) -> None:
        self.quality = DataQuality(DataQualityConfig())
        self._scorers: dict[str, ScorerSignals] = {}

    def scorer(self, start: str) -> ScorerSignals:
        """The scorer of this start of a process; it remembers nothing of another."""
        metrics = ScorerMetrics(CollectorRegistry())
        return self._scorers.setdefault(start, ScorerSignals(WindowCounter(f"scorer@host:{start}", CONFIG), metrics))

    def window(self, number: int, met: dict[str, list[str]]) -> dict[Check, str]:
        """The checks that fail in a window in which these starts of scorers met these items for the first time."""
        merge = WindowMerge(CONFIG)
        updater = WindowCounter("updater@host:1", CONFIG)
        updater.add_total("events", [number * 1_000] * 1_000)
        merge.add_all(updater.take())
        for start, items in met.items():
            scorer = self.scorer(start)
            scorer.delivered(number * 1_000, 0.01)
            for item in items:
                scorer.event(item, number * 1_000, in_vocabulary=False, first_met=True)
            scorer.flush()
            merge.add_all(scorer.windows.take())
        (window,) = merge.open()
        return self.quality.update(window)


def test_items_that_nobody_met_before_are_a_broken_feed() -> None:
    feed = Feed()
    assert set(feed.window(0, {"a": LATE_ITEMS})) == {"items"}
    assert feed.window(1, {"a": []}) == {}


def test_an_item_is_new_once_however_many_scorers_meet_it() -> None:
    half = LATE_ITEMS[:90]
    assert Feed().window(0, {"a": half, "b": half}) == {}  # 90 of 1,000; counted twice they would be 18 %


def test_a_restarted_scorer_does_not_make_the_items_new_again() -> None:
    feed = Feed()
    for number in range(5):
        assert feed.window(number, {"a": LATE_ITEMS[number * 80 : number * 80 + 80]}) == {}
    assert feed.window(5, {"b": LATE_ITEMS}) == {}


def test_a_window_without_the_scorers_part_is_not_known_to_be_good() -> None:
    feed = Feed()
    assert feed.window(0, {}) == {}  # there is no scorer yet
    assert feed.window(1, {"a": []}) == {}
    assert set(feed.window(2, {})) == {"items"}
    assert set(feed.window(3, {})) == {"items"}
    assert feed.window(4, {"b": []}) == {}


def test_items_beyond_what_is_remembered_still_count() -> None:
    counter = WindowCounter("scorer@host:1", CONFIG)
    counter.first_met(0, range(10_007))
    counter.first_met(0, range(5))
    (record,) = counter.take()
    assert (len(record.first_met), record.totals) == (10_000, {"new_items": 7})


def test_a_record_of_the_first_release_is_read() -> None:
    old = msgspec.msgpack.encode(["scorer@host:1", 0, 5, {}, {"new_items": 3}, {}])
    assert WindowRecord.decode(old) == WindowRecord("scorer@host:1", 0, 5, {}, {"new_items": 3}, {}, [])


def test_a_share_above_its_limit_by_chance_is_no_fault_of_the_feed() -> None:
    """A thousandth of all events may have impossible times. Two of 1,980 are what chance brings; twenty are not."""

    def judged(misdated: int, events: int) -> list[str]:
        totals = {"events": events - misdated, "dead_letters": misdated, "misdated": misdated}
        return sorted(DataQuality(DataQualityConfig()).update(MergedWindow(0, {}, totals, {})))

    assert judged(2, 1_980) == []
    assert judged(20, 1_980) == ["clock"]
    assert judged(2_400, 2_000_000) == ["clock"], "of many events a little too much is too much"
