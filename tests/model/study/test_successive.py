"""One cut for everybody: what came before is learnt, everything after is asked, and every question counts."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from model.batch import Histories
from model.ranker import Ranked
from model.rerank.choice import RerankerChoice
from model.study.catalogue import Catalogue
from model.study.contenders import CONTENDERS, Contender, Settings, Trained
from model.study.interactions import Interactions
from model.study.report import Study
from model.study.second_stage import SecondStage
from model.study.successive import Successive, slices_by_length

CPU = torch.device("cpu")
ITEMS = [f"i{n}" for n in range(30)]


class Recorder:
    """Lists the catalogue in order and notes what it was asked."""

    def __init__(self, items: int) -> None:
        self.items, self.asked = items, list[list[int]]()

    def rank(self, histories: Histories, k: int) -> Ranked:
        columns = np.full((len(histories), k), -1)
        for user in range(len(histories)):
            seen = histories.columns[histories.offsets[user] : histories.offsets[user + 1]].tolist()
            self.asked.append(seen)
            rest = [item for item in range(self.items) if item not in seen][:k]
            columns[user, : len(rest)] = rest
        return Ranked(columns, np.zeros(columns.shape, np.float32))


def contest(log: Interactions, quantile: float = 0.5) -> Successive:
    return Successive(log, quantile, device=CPU, progress=lambda doing, done: None, on_measured=lambda row: None)


def log_of(*rows: tuple[int, int, int]) -> Interactions:
    users, items, times = (np.array(column) for column in zip(*rows, strict=True))
    return Interactions.ordered("log", users, items, times, ITEMS)


def test_every_question_counts_and_those_without_an_answer_are_misses() -> None:
    fitted = []

    def train(
        catalogue: Catalogue, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
    ) -> Iterator[Trained]:
        recorder = Recorder(len(catalogue.items))
        fitted.append((catalogue.items.ids, histories, recorder))
        yield Trained(recorder, {})

    log = log_of(
        (0, 0, 1), (1, 3, 2), (0, 3, 3), (1, 5, 4), (2, 7, 5),  # before the cut
        (0, 5, 6),  # known user and item: i5 stands second of what is left
        (0, 9, 7),  # an item that no model has met
        (3, 0, 8),  # a cold user: i0 stands first
        (3, 0, 9),  # a repeat, which no list holds
        (0, 7, 9),
    )  # fmt: skip
    study = contest(log)
    row = study.row("recorder", Contender(train, 1, seeded=False), 5)
    ids, histories, recorder = fitted[-1]
    assert ids == ("i0", "i3", "i5", "i7")
    assert [histories.times_ms[histories.offsets[user]] for user in range(3)] == [3, 4, 5]  # nothing later
    assert recorder.asked == [[1, 0], [2, 1, 0], [], [0], [2, 1, 0]]  # i9, unknown to the model, is not in the last
    assert row.figures[0].values[1].tolist() == [1, 0, 1, 0, 1]
    np.testing.assert_allclose(row.figures[0].values[3], [1, 0, 1, 0, 1])
    slices = study.slices()
    assert slices["unknown item"].tolist() == [False, True, False, False, False]
    assert slices["repeat"].tolist() == [False, False, False, True, False]
    assert slices["history 0"].tolist() == [False, False, True, False, False]
    assert slices["known user and item"].tolist() == [True, False, False, True, True]
    assert study.users.tolist() == [0, 0, 3, 3, 0]


def test_slices_by_length_hold_every_question_once() -> None:
    parts = slices_by_length(np.arange(100))
    held = sum((part.astype(int) for part in parts.values()), np.zeros(100, int))
    assert held.tolist() == [1] * 100


def test_a_half_life_is_chosen_before_the_cut() -> None:
    """Fashions that last a day before the cut: the half-life fits them, whatever comes after."""
    rng = np.random.default_rng(0)
    day = 86_400_000
    rows = [(user, int(rng.integers(3)) + 3 * (now % 10), now * day + user) for now in range(20) for user in range(40)]
    half_life = contest(log_of(*rows), 0.75).row("fresh-popularity", CONTENDERS["fresh-popularity"], 1).settings[0]
    assert half_life["half_life_days"] <= 1.0


def test_figures_are_reported_by_part_too() -> None:
    rng = np.random.default_rng(1)
    rows = [(int(rng.integers(30)), int(rng.integers(30)), time) for time in range(600)]
    split = contest(log_of(*rows), 0.8)
    names = ("fresh-popularity", "popularity")
    measured = [split.row(name, CONTENDERS[name], 1) for name in names]
    study = Study("log", "global", "fresh-popularity", ("HR@10",) * 4, measured, split.slices(), split.users)
    records = study.records()
    whole = next(record for record in records if record["slice"] == "all")
    parts = [r for r in records if r["model"] == whole["model"] and r["slice"].startswith("history ")]
    assert sum(part["rows"] for part in parts) == whole["rows"] == len(split.users)
    mean = sum(part["rows"] * part["HR@10"] for part in parts) / whole["rows"]
    assert mean == pytest.approx(whole["HR@10"])


def test_a_log_without_a_past_is_refused() -> None:
    with pytest.raises(ValueError, match="too few moments"):
        contest(log_of((0, 0, 1), (1, 1, 1)))
    with pytest.raises(ValueError, match="quantile"):
        contest(log_of((0, 0, 1), (1, 1, 2)), 1.5)


@pytest.mark.parametrize(("of_model", "served"), [(0.1, "fresh-popularity"), (0.3, "first-stage")])
def test_without_a_better_second_stage_the_better_of_model_and_popularity_is_served(
    monkeypatch: pytest.MonkeyPatch, of_model: float, served: str
) -> None:
    choice = RerankerChoice(None, "no better", 100, ndcg=0.2, model_ndcg=of_model, demand_ndcg=0.2)
    monkeypatch.setattr(SecondStage, "learn", lambda *given: choice)

    def train(
        catalogue: Catalogue, histories: Histories, seed: int, device: torch.device, chosen: Settings | None
    ) -> Iterator[Trained]:
        yield Trained(Recorder(len(catalogue.items)), {"own": 1.0})

    study = contest(log_of(*[(n, 29 - n * n % 30, 1 + n) for n in range(200)]), 0.8)
    rows = {
        "fresh-popularity": study.row("fresh-popularity", CONTENDERS["fresh-popularity"], 1),
        "first-stage": study.row("first-stage", Contender(train, 1), 1),
    }
    own = study.row("own", Contender(train, 1, second_stage=True), 2)
    assert (rows["fresh-popularity"].values != rows["first-stage"].values).any()
    np.testing.assert_array_equal(own.values, rows[served].values)
    assert own.settings == [rows[served].settings[0]] * 2
