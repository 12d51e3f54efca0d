"""Metrics on lists whose value is known, and small studies from end to end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.batch import Histories
from model.evaluate import ndcg, paired_bootstrap, ranks_hit, recall
from model.items import ItemIndex
from model.ranker import Ranked
from model.study.dataset import joined, split_per_user
from model.study.figures import HELD_OUT_METRICS, held_out_figures, rank_unmasked
from model.study.interactions import Interactions
from model.study.protocols import Protocol, contestants, run
from model.study.report import Row

ITEMS = ItemIndex([f"i{n}" for n in range(30)])


def histories(*rows: list[int]) -> Histories:
    """Newest first."""
    return Histories.pack(ITEMS, [([f"i{n}" for n in row], range(len(row), 0, -1), [1.0] * len(row)) for row in rows])


class Fixed:
    """Ranks all items by column, without the history."""

    def rank(self, given: Histories, k: int) -> Ranked:
        columns = np.full((len(given), k), -1)
        for user in range(len(given)):
            seen = set(given.columns[given.offsets[user] : given.offsets[user + 1]])
            rest = [item for item in range(30) if item not in seen][:k]
            columns[user, : len(rest)] = rest
        return Ranked(columns, np.where(columns >= 0, -columns, -np.inf).astype(np.float32))


def test_recall_and_ndcg_of_known_lists() -> None:
    ranked = Ranked(np.array([[3, 1, 2], [7, 8, -1], [1, 2, 3]]), np.zeros((3, 3), np.float32))
    held_out = histories([1, 9], [7], [])
    hits = ranks_hit(ranked, held_out)
    assert hits.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    np.testing.assert_allclose(recall(hits, held_out.lengths, 3), [0.5, 1.0, np.nan])
    second = (1 / np.log2(3)) / (1 + 1 / np.log2(3))
    np.testing.assert_allclose(ndcg(hits, held_out.lengths, 3), [second, 1.0, np.nan])


def test_masked_items_leave_the_list_and_the_next_ones_move_up() -> None:
    ranked = rank_unmasked(Fixed(), histories([0, 2], []), histories([1, 4], [0]), 3)
    assert ranked.columns.tolist() == [[3, 5, 6], [1, 2, 3]]


def test_beyond_accuracy() -> None:
    popularity = np.full(30, 1)
    same = held_out_figures(Fixed(), histories([], []), histories([0], [1]), 30, popularity)
    assert same.beyond["coverage"] == 20 / 30
    np.testing.assert_allclose(same.beyond["novelty"], 1.0)  # one user of two had each
    np.testing.assert_allclose(same.beyond["gini"], 1 / 3)  # two thirds of the catalogue share all evenly
    np.testing.assert_allclose(same.values[0], [1, 1])


def test_the_interval_holds_the_difference_and_sees_a_real_one() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(500)
    gain = paired_bootstrap(base + 0.01 + rng.normal(0, 0.02, 500), base, rng)
    assert 0 < gain.low < gain.mean < gain.high and abs(gain.mean - 0.01) < 0.003
    nothing = paired_bootstrap(base, base + rng.normal(0, 0.02, 500), rng)
    assert nothing.low < 0 < nothing.high


def test_joining_keeps_newest_first() -> None:
    both = joined(histories([5], [], [1, 2]), histories([3, 4], [9], []))
    assert both.offsets.tolist() == [0, 3, 4, 6]
    assert both.columns.tolist() == [5, 3, 4, 9, 1, 2]


def test_users_are_resampled_whole() -> None:
    """A hundred users, each with ten questions that end alike: ten times the rows are no more evidence."""
    rng = np.random.default_rng(0)
    per_user = rng.normal(0.1, 1, 100)
    users, gain = np.repeat(np.arange(100), 10), np.repeat(per_user, 10)
    once = paired_bootstrap(per_user, np.zeros(100), np.random.default_rng(1))
    whole = paired_bootstrap(gain, np.zeros(1000), np.random.default_rng(1), groups=users)
    torn = paired_bootstrap(gain, np.zeros(1000), np.random.default_rng(1))
    assert (whole.mean, whole.low, whole.high) == pytest.approx((once.mean, once.low, once.high))
    assert torn.high - torn.low < (whole.high - whole.low) / 2


def walks(users: int = 60, length: int = 20) -> Interactions:
    """Everybody walks the catalogue upwards from a place of their own."""
    rows = [(user, (user * 3 + step) % 180, 1000 + step) for user in range(users) for step in range(length)]
    user, item, time_ms = np.array(rows).T
    return Interactions.ordered("walks", user, item, time_ms * 1000, [f"i{n}" for n in range(180)])


def test_each_user_is_cut_by_time() -> None:
    data = split_per_user(walks(users=3, length=10))
    assert data.train.lengths.tolist() == [7] * 3
    assert data.middle.lengths.tolist() == [1] * 3 and data.last.lengths.tolist() == [2] * 3
    names = np.array(data.catalogue.items.ids)
    assert names[data.last.columns[:2]].tolist() == ["i9", "i8"] and names[data.middle.columns[0]] == "i7"
    assert data.train.times_ms[0] == 1_006_000


@pytest.mark.parametrize("protocol", ["global", "per-user", "paper"])
def test_a_study_finds_what_follows(tmp_path: Path, protocol: Protocol) -> None:
    rows: list[Row] = []
    study = run(
        walks(), protocol=protocol, models=["covisit"], seeds=2, against="fresh-popularity", on_measured=rows.append
    )
    assert [row.model for row in rows] == ["fresh-popularity", "item-item", "covisit"] and len(rows[2].figures) == 1
    for interval in study.differences("covisit"):
        assert interval.low > 0
    if protocol != "paper":
        assert study.row("covisit").settings[0]["window"] >= 1
    study.write_csv(tmp_path / "out.csv")
    study.write_png(tmp_path / "out.png")
    first = "slice,rows,model,seeds,HR@10" if protocol == "global" else "model,seeds,Recall@10"
    assert (tmp_path / "out.csv").read_text().startswith(first)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def taken(rng: np.random.Generator, wanted: np.ndarray, count: int = 20) -> list[int]:
    return rng.choice(len(wanted), count, replace=False, p=wanted / wanted.sum()).tolist()


def test_more_variety_puts_more_of_the_catalogue_into_lists() -> None:
    rng = np.random.default_rng(5)
    wanted = 1 / np.arange(1, 301)
    rows = [(user, item, step) for user in range(80) for step, item in enumerate(taken(rng, wanted))]
    user, item, time = np.array(rows).T
    log = Interactions.ordered("favourites", user, item, 1000 + time, [f"i{n}" for n in range(300)])
    study = run(log, models=["covisit"], variety=[1.0, 5.0])
    plain, some, much = (study.row(f"covisit{of}") for of in ("", ", variety 1", ", variety 5"))
    assert plain.beyond("coverage") < much.beyond("coverage")
    assert plain.beyond("novelty") < some.beyond("novelty") < much.beyond("novelty")
    assert much.values[3].mean() < plain.values[3].mean(), "it has a price"
    assert [row.model for row in study.rows[:2]] == ["fresh-popularity", "item-item"], "those not named are not varied"


@pytest.mark.parametrize("protocol", ["global", "paper"])
def test_variety_is_measured_per_user(protocol: Protocol) -> None:
    with pytest.raises(ValueError, match="variety is measured with the protocol per-user"):
        run(walks(), protocol=protocol, models=["covisit"], variety=[0.5])


@pytest.mark.parametrize("protocol", ["per-user", "paper", "noisy"])
def test_what_needs_a_timeline_is_refused_without_one(protocol: Protocol) -> None:
    with pytest.raises(ValueError, match="stream-without-network can only be measured with the protocol global"):
        contestants(protocol, ["stream-without-network"])


def test_a_dataset_without_timestamps_has_popularity_that_cannot_decay() -> None:
    data = split_per_user(walks())
    untimed = replace(data, catalogue=replace(data.catalogue, timed=False))
    study = run(untimed, models=["popularity"], against="popularity")
    fresh, plain = study.row("fresh-popularity"), study.row("popularity")
    assert fresh.settings[0] == {"half_life_days": float("inf")}
    np.testing.assert_array_equal(fresh.values, plain.values)
    with pytest.raises(ValueError, match="no timestamps"):
        run(untimed, protocol="global")


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no model resnet"):
        run(walks(), models=["resnet"])
    with pytest.raises(ValueError, match="protocol must be"):
        run(walks(), protocol="dishonest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="too few moments"):
        run(walks(users=3, length=1), protocol="global")


def test_the_metrics_of_held_out_items_have_names() -> None:
    assert run(walks(), models=["popularity"], against="popularity").metrics == HELD_OUT_METRICS
