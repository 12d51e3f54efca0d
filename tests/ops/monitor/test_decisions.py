"""A broken feed is not learnt, a drift is, and a model that proves worse is taken back once, then carefully."""

import pytest

from ops.monitor.data_quality import DataQuality, DataQualityConfig
from ops.monitor.decisions import DecisionLoop, SkipRound, StartRound
from ops.monitor.loop_state import LoopConfig, LoopState
from ops.monitor.probation import RollBack
from ops.monitor.windows import MergedWindow

MINUTE, HOUR = 60_000, 3_600_000
CALM = dict.fromkeys(("item_popularity", "history_length", "inter_arrival", "event_type", "unknown_item_rate"), 0)
DRIFT = CALM | {"item_popularity": 2}


@pytest.fixture
def loop() -> DecisionLoop:
    """Two models were promoted long ago, a round ended long ago."""
    loop = DecisionLoop(LoopConfig())
    loop.probation.promoted("m1", 0)
    loop.probation.promoted("m2", HOUR, coverage=0.4)
    loop.round_ended(HOUR, took_ms=MINUTE)
    return loop


NOW = 10 * HOUR


def start(loop: DecisionLoop, now_ms: int = NOW, new_events: int = 10_000) -> object:
    return loop.next_round(now_ms, new_events)


# -- the feed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "busiest", "check"),
    [
        ({"events": 1000}, 20, None),
        ({"events": 5000}, 20, "rate"),
        ({"events": 100}, 2, "rate"),
        ({"events": 1000, "dead_letters": 30}, 20, "dead_letters"),
        ({"events": 1000, "duplicates": 90}, 20, "duplicates"),
        ({"events": 1000}, 200, "user_share"),
        ({"events": 1000, "dead_letters": 5, "misdated": 5}, 20, "clock"),
        ({"events": 1000, "backward": 300}, 20, "clock"),
        ({"events": 1000, "new_items": 400}, 20, "items"),
    ],
)
def test_each_fault_of_the_feed_is_named_and_forgotten_when_it_ends(
    fault: dict[str, int], busiest: int, check: str | None
) -> None:
    quality = DataQuality(DataQualityConfig())
    for number in range(20):
        assert quality.update(MergedWindow(number * 15 * MINUTE, {}, {"events": 1000}, {"user_events": 20})) == {}
    failed = quality.update(MergedWindow(20 * 15 * MINUTE, {}, fault, {"user_events": busiest}))
    assert set(failed) == ({check} if check else set())
    assert quality.update(MergedWindow(21 * 15 * MINUTE, {}, {"events": 1000}, {"user_events": 20})) == {}


def test_a_feed_that_has_grown_for_good_is_normal_again_by_itself() -> None:
    quality = DataQuality(DataQualityConfig())
    failed = [
        bool(quality.update(MergedWindow(number * 15 * MINUTE, {}, {"events": 1000 if number < 96 else 5000}, {})))
        for number in range(240)
    ]
    assert failed[96] and not any(failed[96 + 60 :])


def test_what_a_broken_feed_asks_for_is_not_learnt_and_the_loop_is_back_by_itself(loop: DecisionLoop) -> None:
    loop.window(DRIFT, {"duplicates": "900 of 1000"})
    assert start(loop) is None
    loop.request("schedule")
    skipped = start(loop)
    assert isinstance(skipped, SkipRound) and skipped.gate == "data_quality"
    assert start(loop) is None  # said once, and not waiting for the feed to heal
    loop.window(CALM, {})
    assert start(loop, NOW + 15 * MINUTE) is None
    loop.request("schedule")
    assert isinstance(start(loop, NOW + 15 * MINUTE), StartRound)


def test_many_signals_at_once_are_the_feed(loop: DecisionLoop) -> None:
    loop.window(dict.fromkeys(CALM, 2), {})
    loop.request("schedule")
    skipped = start(loop)
    assert isinstance(skipped, SkipRound) and "5 signals drift at once" in skipped.why


def test_a_drift_that_began_in_a_fault_is_believed_only_when_it_outlives_it(loop: DecisionLoop) -> None:
    loop.window(DRIFT, {"rate": "none"})
    asked = []
    for _ in range(1, 12):
        loop.window(DRIFT, {})
        asked.append("drift" in loop.state.waiting)
    assert asked == [False] * 8 + [True] * 3


# -- drift -------------------------------------------------------------------------------------------------------------


def test_a_drift_gets_a_round_before_its_time_and_is_absorbed(loop: DecisionLoop) -> None:
    loop.window(DRIFT, {})
    assert start(loop) == StartRound("drift", False, "item_popularity")
    assert start(loop) is None  # one at a time
    loop.round_ended(NOW + MINUTE, took_ms=MINUTE)
    loop.probation.promoted("m3", NOW + MINUTE, trigger="drift")
    loop.window(CALM, {})
    assert start(loop, NOW + 9 * HOUR) is None


def test_a_drift_that_stays_asks_for_a_model_from_nothing(loop: DecisionLoop) -> None:
    loop.window(DRIFT, {})
    start(loop)
    loop.round_ended(NOW, took_ms=MINUTE)
    loop.probation.promoted("m3", NOW, trigger="drift")
    for _ in range(1, 4):
        loop.window(DRIFT, {})
    assert start(loop, NOW + 7 * HOUR) == StartRound("drift", True, "item_popularity")


def test_unknown_items_ask_for_a_larger_vocabulary(loop: DecisionLoop) -> None:
    loop.window(CALM | {"unknown_item_rate": 2}, {})
    assert start(loop) == StartRound("vocabulary", False, "unknown_item_rate")


@pytest.mark.parametrize(
    ("now_ms", "new_events", "words"),
    [(HOUR + 5 * MINUTE, 10_000, "5 minutes ago"), (NOW, 100, "100 events"), (HOUR + 30 * MINUTE, 10_000, "probation")],
)
def test_a_round_before_its_time_waits_until_it_may(
    loop: DecisionLoop, now_ms: int, new_events: int, words: str
) -> None:
    loop.window(DRIFT, {})
    skipped = start(loop, now_ms, new_events)
    assert isinstance(skipped, SkipRound) and skipped.gate == "cooldown" and words in skipped.why
    assert start(loop, now_ms, new_events) is None  # said once
    assert isinstance(start(loop), StartRound)


def test_four_early_rounds_an_hour_are_enough(loop: DecisionLoop) -> None:
    started = 0
    for minute in range(0, 60, 11):
        now = NOW + minute * MINUTE
        loop.window(DRIFT, {})
        if isinstance(start(loop, now), StartRound):
            started += 1
            loop.round_ended(now, took_ms=1000)
    assert started == 4


# -- rollback ----------------------------------------------------------------------------------------------------------


def test_a_poisoned_model_is_taken_back_and_never_a_parent_again(loop: DecisionLoop) -> None:
    loop.probation.promoted("poisoned", NOW, coverage=0.4)
    assert loop.probation.judge(NOW + MINUTE, evidence_ratio=0.9) is None
    back = loop.probation.judge(NOW + MINUTE, evidence_ratio=1.2)
    assert isinstance(back, RollBack) and back.reason == "quality"
    loop.probation.rolled_back(NOW + MINUTE)
    assert loop.state.live == "m2"
    assert loop.probation.may_promote("poisoned", NOW + 3 * HOUR) == "its parent poisoned is quarantined"
    assert loop.probation.may_promote("m2", NOW + 30 * MINUTE) is not None  # closed for an hour
    assert loop.probation.may_promote("m2", NOW + 2 * HOUR) is None
    assert loop.probation.judge(NOW + 2 * HOUR, evidence_ratio=9) is None  # nothing to go back to


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        ({"nonfinite": 1}, "nonfinite"),
        ({"coverage": 0.1}, "coverage"),
        ({"latency_alarm_since_ms": NOW + 2 * MINUTE}, "latency"),
        ({"latency_alarm_since_ms": NOW + HOUR}, None),  # too long after the swap to be its doing
        ({"latency_alarm_since_ms": NOW - HOUR}, None),
        ({"coverage": 0.3}, None),
    ],
)
def test_probation_has_several_judges(loop: DecisionLoop, evidence: dict, reason: str | None) -> None:
    loop.probation.promoted("m3", NOW, coverage=0.4)
    back = loop.probation.judge(NOW + 2 * MINUTE, **evidence)
    assert (back and back.reason) == reason
    assert loop.probation.judge(NOW + 7 * HOUR, nonfinite=1) is None  # probation is over


def test_a_second_rollback_in_a_day_freezes_promotions_until_somebody_looks(loop: DecisionLoop) -> None:
    for number in (1, 2):
        loop.probation.promoted(f"bad{number}", NOW + number * 3 * HOUR)
        loop.probation.rolled_back(NOW + number * 3 * HOUR)
    later = NOW + 100 * HOUR
    assert loop.probation.may_promote("m2", later) is not None
    loop.request("schedule")
    assert isinstance(start(loop, later), SkipRound)
    restarted = DecisionLoop(LoopConfig(), LoopState.decode(loop.state.encode()))
    assert restarted.probation.may_promote("m2", later) is not None
    restarted.probation.acknowledge()
    assert restarted.probation.may_promote("m2", later) is None


def test_a_broken_model_is_rolled_back_and_moved_demand_is_learnt(loop: DecisionLoop) -> None:
    back = loop.quality("model")
    assert isinstance(back, RollBack)
    assert loop.quality("demand") is None
    assert start(loop) == StartRound("quality", False, "hits fell, for popularity too")
    alone = DecisionLoop(LoopConfig())
    alone.probation.promoted("m1", 0)
    assert alone.quality("model") is None
    assert start(alone) == StartRound(
        "quality", True, "hits fell, popularity's did not, and there is no previous model"
    )


def test_many_drifting_signals_are_a_fault_but_not_for_ever(loop: DecisionLoop) -> None:
    many = dict.fromkeys(("item_popularity", "history_length", "inter_arrival", "event_type"), 2)
    for _ in range(loop.config.many_windows):
        loop.window(many, {})
        assert "signals" in loop.faults.failed_checks
    loop.window(many, {})
    assert loop.faults.failed_checks == {}
    loop.window({}, {})
    loop.window(many, {})
    assert "signals" in loop.faults.failed_checks


def test_a_rollback_by_hand_leaves_promotions_open(loop: DecisionLoop) -> None:
    live, previous = loop.state.live, loop.state.previous
    loop.probation.rolled_back(NOW, by_hand=True)
    assert loop.state.live == previous and loop.state.quarantined == [live]
    assert loop.probation.may_promote(previous, NOW) is None
    assert "quarantined" in (loop.probation.may_promote(live, NOW) or "")


def test_a_feed_of_few_events_has_no_rate_to_fail() -> None:
    quality = DataQuality(DataQualityConfig())
    for number, events in enumerate([3, 5, 2, 4, 3, 5, 2, 4, 60, 0, 3]):
        assert quality.update(MergedWindow(number * 15 * MINUTE, {}, {"events": events}, {})) == {}
