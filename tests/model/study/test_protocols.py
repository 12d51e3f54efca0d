"""Metrics on lists whose value is known, logs read as they are, and a small study from end to end."""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model.batch import Histories
from model.evaluate import ndcg, paired_bootstrap, ranks_hit, recall
from model.items import ItemIndex
from model.ranker import Ranked
from model.study.dataset import joined, load_dataset
from model.study.protocols import METRICS, measure, rank_unmasked, run
from stream.cli.main import app

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
    same = measure(Fixed(), histories([], []), histories([0], [1]), 30, popularity)
    assert same.coverage == 20 / 30
    np.testing.assert_allclose(same.novelty, 1.0)  # one user of two had each
    np.testing.assert_allclose(same.gini, 1 / 3)  # two thirds of the catalogue share all evenly
    np.testing.assert_allclose(same.per_user[0], [1, 1])


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


def write_log(path: Path, users: int = 60, length: int = 20) -> None:
    """Everybody walks the catalogue upwards from a place of their own."""
    lines = ["user,item,timestamp,rating"]
    for user in range(users):
        lines += [f"u{user},i{(user * 3 + step) % 180},{1000 + step},{5 if step else 1}" for step in range(length)]
    path.write_text("\n".join(lines) + "\n")


def test_a_table_is_cut_by_time_and_low_ratings_are_left_out(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv", users=3, length=11)
    data = load_dataset(tmp_path / "log.csv")
    assert data.train.lengths.tolist() == [7] * 3
    assert data.middle.lengths.tolist() == [1] * 3 and data.last.lengths.tolist() == [2] * 3
    names = np.array(data.items.ids)
    assert names[data.last.columns[:2]].tolist() == ["i10", "i9"] and names[data.middle.columns[0]] == "i8"
    assert data.train.times_ms[0] == 1_007_000


@pytest.mark.parametrize("protocol", ["honest", "paper"])
def test_a_study_finds_what_follows(tmp_path: Path, protocol: str) -> None:
    write_log(tmp_path / "log.csv")
    rows = []
    study = run(
        tmp_path / "log.csv",
        protocol=protocol,  # type: ignore[arg-type]
        models=["popularity", "covisit"],
        seeds=2,
        against="popularity",
        on_measured=rows.append,
    )
    assert [row.model for row in rows] == ["popularity", "covisit"] and len(rows[1].figures) == 1
    for interval in study.differences("covisit"):
        assert interval.low > 0
    if protocol == "honest":
        assert study.row("covisit").settings[0]["window"] >= 1
    study.write_csv(tmp_path / "out.csv")
    study.write_png(tmp_path / "out.png")
    assert (tmp_path / "out.csv").read_text().startswith("model,seeds,Recall@10")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_prints_one_table_and_writes_its_files(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv")
    names = ["popularity", "covisit"]
    chosen = [option for name in names for option in ("--model", name)]
    files = ["--csv", str(tmp_path / "out.csv"), "--png", str(tmp_path / "out.png")]
    command = ["evaluate", str(tmp_path / "log.csv"), *chosen, "--against", "popularity", "--device", "cpu", *files]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "…" not in done.output  # what is written to a file is not cut to the width of a terminal
    for name in names:  # each seed is told when it is done
        assert f"{name} (1): Recall@10 " in done.output and "s of training]" in done.output
    for column in (*METRICS, "coverage", "Gini", "novelty", "train (s)", "users/s"):
        assert column in done.output
    with (tmp_path / "out.csv").open() as file:
        assert [record["model"] for record in csv.DictReader(file)] == names
    assert (tmp_path / "out.png").exists()


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        run(tmp_path / "nothing.npz")
    with pytest.raises(ValueError, match=r"no model resnet"):
        run(tmp_path / "nothing.npz", models=["resnet"])
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="needs columns"):
        run(tmp_path / "log.csv")
