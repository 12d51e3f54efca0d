"""False alarms are bounded, real falls are found in time, and the model is told apart from the world."""

import numpy as np
import pytest

from ops.monitor.beyond_accuracy import ItemPopularity, ListWindow, gini
from ops.monitor.detectors import Adwin, BernoulliCusum, McNemarEvidence
from ops.monitor.quality import OutcomeMonitor, PairedCounts, QualityConfig, QualityMonitor, Verdict


def paired(rng: np.random.Generator, blocks: int, model: float, popularity: float, both: float) -> list[PairedCounts]:
    """Blocks of 250 events that the model and the popularity list hit with these probabilities."""
    chances = [both, model - both, popularity - both, 1 - model - popularity + both]
    return [PairedCounts(*row) for row in rng.multinomial(250, chances, size=blocks).tolist()]


# -- detectors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "delay"), [(0.05, 9_000), (0.1, 5_000), (0.3, 1_500)])
def test_a_cusum_finds_a_fall_in_time_and_hardly_ever_cries_wolf(rate: float, delay: int) -> None:
    rng = np.random.default_rng(0)
    false_alarms = late = 0
    for _ in range(10):
        cusum = BernoulliCusum(rate)
        outcomes = rng.random(20_000) < rate
        false_alarms += any(cusum.update(hit) for hit in outcomes.tolist())
        cusum.reset()
        fallen = rng.random(delay) < 0.7 * rate
        late += not any(cusum.update(hit) for hit in fallen.tolist())
    assert (false_alarms <= 3, late) == (True, 0)  # 200,000 outcomes: two are expected at most


def test_evidence_is_wrong_as_rarely_as_promised_however_often_it_is_looked_at() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        evidence = McNemarEvidence(alpha=0.05)
        wrong += any(evidence.add(int(worse), int(not worse)) for worse in rng.random(1_000) < 0.5)
    assert wrong <= 0.05 * 300


def test_evidence_against_a_model_that_lost_half_its_hits_comes_soon() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        evidence = McNemarEvidence(alpha=0.001)
        # Per event, the previous model alone hits in 7 %, the live one alone in 2 %.
        assert any(evidence.add(int(a), int(b)) for a, b in rng.multinomial(1, [0.07, 0.02, 0.91], 2_500)[:, :2])


def test_adwin_tells_up_from_down() -> None:
    rng = np.random.default_rng(0)
    for before, after, direction in ((0.1, 0.05, "down"), (0.05, 0.1, "up")):
        adwin = Adwin()
        outcomes = rng.random(12_000) < np.repeat([before, after], 6_000)
        found = [(number, change) for number, hit in enumerate(outcomes.tolist()) if (change := adwin.update(hit))]
        assert found[0][1] == direction and 6_000 <= found[0][0] < 10_000


# -- model or demand ---------------------------------------------------------------------------------------------------


def verdict(monitor: QualityMonitor, blocks: list[PairedCounts]) -> tuple[Verdict, int]:
    events = 0
    for block in blocks:
        events += block.events
        if monitor.add(block) in ("model", "demand"):
            break
    return monitor.verdict, events


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_breaks_and_a_demand_that_moves_are_told_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    normal, keep = (0.10, 0.06, 0.03), 0.7
    for named, after in (
        ("model", (keep * 0.10, 0.06, keep * 0.03)),
        ("demand", (keep * 0.10, keep * 0.06, keep * 0.03)),
    ):
        monitor = QualityMonitor(QualityConfig())
        assert verdict(monitor, paired(rng, 200, *normal))[0] == "ok"
        found, events = verdict(monitor, paired(rng, 80, *after))
        assert (found, events <= 10_000) == (named, True)


def test_the_previous_model_is_asked_back_only_by_evidence() -> None:
    monitor = QualityMonitor(QualityConfig())
    assert not monitor.add_previous(PairedCounts(both=10, first=40, second=50, neither=900))
    assert monitor.add_previous(PairedCounts(both=10, first=20, second=90, neither=900))
    monitor.reset()
    assert monitor.rollback.ratio < 1


def test_a_user_counts_once_in_a_while() -> None:
    config = QualityConfig(reference_events=100, pause_ms=600_000)
    monitor = OutcomeMonitor(config)
    for number in range(400):
        monitor.update(b"same", number, "control", hit=True)
    assert monitor.adwin_events["control"] == 1
    monitor.update(b"other", 399, "control", hit=True)
    monitor.update(b"same", 600_000, "control", hit=True)
    assert monitor.adwin_events["control"] == 3


def test_a_scorer_sees_a_fall_by_both_detectors() -> None:
    rng = np.random.default_rng(0)
    monitor = OutcomeMonitor(QualityConfig(reference_events=2_000))
    found: dict[tuple[str, str], int] = {}
    for number, hit in enumerate((rng.random(12_000) < np.repeat([0.3, 0.15], 6_000)).tolist()):
        for one in monitor.update(b"u%d" % number, 0, "control", hit):
            found.setdefault((one.detector, one.direction), number)
    assert found.keys() == {("adwin", "down"), ("cusum", "down")}
    assert all(6_000 <= number < 7_500 for number in found.values())


# -- beyond accuracy ---------------------------------------------------------------------------------------------------


def test_gini_counts_the_items_that_nobody_was_shown() -> None:
    assert gini([10] * 10, 10) == pytest.approx(0)
    assert gini([10] * 10, 100) == pytest.approx(0.9)
    assert gini([10] * 10 + [0] * 90, 100) == pytest.approx(0.9)


def test_list_figures_are_those_of_the_newest_list_of_the_newest_users() -> None:
    rng = np.random.default_rng(0)
    items = [f"i{number}" for number in range(50)]
    popularity = ItemPopularity.of({item: 50 - number for number, item in enumerate(items)})
    window = ListWindow(lists=30)
    newest: dict[bytes, list[str]] = {}
    for _ in range(500):
        user = b"u%d" % rng.integers(60)
        shown = [items[column] for column in rng.choice(50, 5, replace=False)]
        window.add(user, shown, popularity)
        newest.pop(user, None)
        newest[user] = shown
        while len(newest) > 30:
            newest.pop(next(iter(newest)))
    figures = window.figures(vocabulary=50)
    shown_items = [item for shown in newest.values() for item in shown]
    assert figures.lists == 30
    assert figures.coverage == len(set(shown_items)) / 50
    assert figures.gini == pytest.approx(gini([shown_items.count(item) for item in items], 50))
    assert figures.novelty == pytest.approx(np.mean([popularity.items[item][0] for item in shown_items]))
    assert figures.popularity == pytest.approx(np.mean([popularity.items[item][1] for item in shown_items]))
    assert 0.5 < figures.churn <= 1
