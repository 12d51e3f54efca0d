"""The whole system on a log whose answers are known, interrupted or not."""

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from stream.backtest.config import BacktestConfig, BacktestError, Interrupted
from stream.backtest.outcome import Outcome
from stream.backtest.run import Backtest
from tests.support.backtest_world import QUICK, walks

CPU = torch.device("cpu")
NDCG10 = 2


def run(folder: Path, config: BacktestConfig = QUICK) -> Outcome:
    return Backtest(walks(), config, folder, CPU).run()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(tmp_path_factory.mktemp("backtest"))


def test_what_follows_is_found_and_a_change_is_followed(whole: Outcome) -> None:
    log = whole.log
    middle = np.flatnonzero(log.times_ms >= log.times_ms[0] + (log.times_ms[-1] - log.times_ms[0]) * 0.75)[0]
    late = whole.events >= middle  # half of what is left after the step changed
    mean = {arm: float(whole.figures(arm)[NDCG10][late].mean()) for arm in whole.arms}
    assert mean["system"] > 3 * mean["frozen"]  # which goes on with the old step
    assert mean["retrained"] > 3 * mean["frozen"] and mean["item-item"] > 3 * mean["frozen"]
    assert mean["system"] > mean["fresh-popularity"]


def test_everybody_answers_the_same_questions_and_before_the_first_model_alike(whole: Outcome) -> None:
    ranks = np.asarray(whole.ranks)
    assert (ranks >= 0).all() and ranks.max() <= 20  # every event of this log is asked
    before = slice(0, whole.first_event)
    models = [whole.arms.index(arm) for arm in ("system", "frozen", "retrained", "item-item", "ease-recent")]
    for row in models[1:]:
        np.testing.assert_array_equal(ranks[row, before], ranks[models[0], before])
    assert whole.events[0] == whole.first_event > 200


def test_rounds_are_the_trainers(whole: Outcome) -> None:
    rounds = whole.rounds["system"]
    assert rounds[0].outcome == "promoted" and rounds[0].users >= QUICK.trainer.first_users
    assert all(later.event > earlier.event for earlier, later in pairwise(rounds))
    scheduled = [report.time_ms for report in rounds if report.trigger == "schedule"]
    assert (np.diff(scheduled) >= QUICK.round_days * 86_400_000).all() and len(scheduled) > 3
    assert whole.train_seconds["system"] > 0 and whole.train_seconds["fresh-popularity"] == 0
    assert whole.train_seconds["frozen"] == rounds[0].train_seconds


@pytest.mark.parametrize("stops", [(3,), (900, 1200)])
def test_an_interrupted_backtest_ends_with_the_same_ranks(
    whole: Outcome, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    for at in stops:
        stop = threading.Event()

        def progress(doing: str, events: int, stop: threading.Event = stop, at: int = at) -> None:
            if doing == "events" and events >= at:
                stop.set()

        with pytest.raises(Interrupted):
            Backtest(walks(), QUICK, tmp_path, CPU, stop=stop, progress=progress).run()
    resumed = run(tmp_path)
    for row, arm in enumerate(whole.arms):
        np.testing.assert_array_equal(np.asarray(resumed.ranks[row]), np.asarray(whole.ranks[row]), err_msg=arm)
    names = [[report.version for report in outcome.rounds["system"]] for outcome in (resumed, whole)]
    assert names[0] == names[1]


def test_a_backtest_that_dies_in_a_round_goes_on_from_before_it(whole: Outcome, tmp_path: Path) -> None:
    stop = threading.Event()

    def progress(doing: str, events: int) -> None:
        if doing.startswith("system: round 3"):
            stop.set()

    with pytest.raises(Interrupted):
        Backtest(walks(), QUICK, tmp_path, CPU, stop=stop, progress=progress).run()
    np.testing.assert_array_equal(np.asarray(run(tmp_path).ranks), np.asarray(whole.ranks))


def test_a_finished_backtest_is_read_and_another_ones_folder_refused(whole: Outcome, tmp_path: Path) -> None:
    waiting = replace(QUICK.trainer, first_interactions=10**6)
    small = replace(QUICK, arms=("fresh-popularity",), trainer=waiting)
    first = Backtest(walks(users=20), small, tmp_path, CPU).run()
    again = Backtest(walks(users=20), small, tmp_path, CPU).run()
    np.testing.assert_array_equal(np.asarray(first.ranks), np.asarray(again.ranks))
    assert first.first_event == len(first.log) == len(first.events)  # without a model every question counts
    reseeded = replace(small, trainer=replace(waiting, seed=1))
    for other, config in ((walks(users=21), small), (walks(users=20), reseeded)):
        with pytest.raises(BacktestError, match="another log or with other settings"):
            Backtest(other, config, tmp_path, CPU)
    (tmp_path / "state.msgpack").write_bytes(b"\xff")
    with pytest.raises(BacktestError, match="--restart"):
        Backtest(walks(users=20), small, tmp_path, CPU)


def test_records_hold_the_whole_the_periods_and_the_parts(whole: Outcome, tmp_path: Path) -> None:
    records = whole.records("fresh-popularity")
    of_system = {record["part"]: record for record in records if record["arm"] == "system"}
    total = of_system["all"]["questions"]
    for group in (
        [name for name in of_system if name.startswith("history ")],
        [name for name in of_system if name[:2] == "20"],
        ["first meeting", "repeat"],
        ["new item", "item under 1 day", "under 7 days", "under 30 days", "older item"],
    ):
        parts = [of_system[name] for name in group if name in of_system]
        assert sum(part["questions"] for part in parts) == total, group
        mean = sum(part["questions"] * part["NDCG@10"] for part in parts) / total
        assert mean == pytest.approx(of_system["all"]["NDCG@10"])
    assert of_system["all"]["NDCG@10 difference low"] < of_system["all"]["NDCG@10 difference mean"]
    assert of_system["all"]["promoted"] <= of_system["all"]["rounds"]
    whole.write_csv(tmp_path / "out.csv", "fresh-popularity")
    whole.write_png(tmp_path / "out.png", "fresh-popularity")
    assert (tmp_path / "out.csv").read_text().startswith("part,questions,arm,HR@10")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="no arm 'oracle'"):
        BacktestConfig(arms=("oracle",))
    with pytest.raises(ValueError, match="no arm 'preset:resnet'"):
        BacktestConfig(arms=("preset:resnet",))
    with pytest.raises(ValueError, match="round_days"):
        BacktestConfig(round_days=0)
    assert BacktestConfig(arms=("frozen",)).names == ("frozen", "system")
