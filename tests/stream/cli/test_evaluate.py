"""`freshet evaluate` on a log as people have it: one table, its files, and one line for what cannot be run."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from model.study.figures import HELD_OUT_METRICS, NEXT_METRICS
from stream.backtest.event_log import log_of_file
from stream.cli.study_log import read_study_log
from stream.sources.log.options import LogOptions
from tests.support.commands import Done, freshet


def write_log(path: Path, users: int = 60, length: int = 20) -> Path:
    """Everybody walks the catalogue upwards from a place of their own; the first step is rated low."""
    lines = ["user,item,timestamp,rating,event"]
    for user in range(users):
        for step in range(length):
            kind = "buy" if step % 3 else "view"
            lines.append(f"u{user},i{(user * 3 + step) % 180},{1000 + step},{5 if step else 1},{kind}")
    path.write_text("\n".join(lines) + "\n")
    return path


def evaluate(path: Path, *options: str) -> Done:
    done = freshet("evaluate", str(path), "--device", "cpu", *options)
    return done._replace(output=done.errors + done.output)


@pytest.mark.parametrize("protocol", ["global", "per-user", "honest"])
def test_it_prints_one_table_and_writes_its_files(tmp_path: Path, protocol: str) -> None:
    out = tmp_path / "out.csv", tmp_path / "out.png"
    files = ["--csv", str(out[0]), "--png", str(out[1])]
    models = ["--model", "popularity", "--model", "covisit", "--against", "popularity"]
    done = evaluate(write_log(tmp_path / "log.csv"), "--protocol", protocol, *models, *files)
    assert done.exit_code == 0, done.output
    assert "1,200 events of 60 users and 180 items in 1,200 rows, 1970-01-01" in done.output
    assert "…" not in done.output  # what is written to a file is not cut to the width of a terminal
    names = ["fresh-popularity", "item-item", "popularity", "covisit"]
    metrics = NEXT_METRICS if protocol == "global" else HELD_OUT_METRICS
    for name in names:  # each training is reported when it is measured
        assert f"{name} (1): {metrics[0]} " in done.output and "s of training]" in done.output
    beyond = () if protocol == "global" else ("coverage", "Gini", "novelty (bits)")
    for column in (*metrics, *beyond, "train (s)", "users/s"):
        assert column in done.output
    assert ("by part of the questions" in done.output) == (protocol == "global")
    assert ("is called `per-user` now" in done.output) == (protocol == "honest")
    with out[0].open() as file:
        records = list(csv.DictReader(file))
    assert [record["model"] for record in records[:4]] == names
    assert len(records) == 4 if protocol != "global" else {"all", "history 6-20"} <= {r["slice"] for r in records}
    assert out[1].read_bytes().startswith(b"\x89PNG")


def test_the_robustness_study_mixes_in_what_the_rating_leaves_out(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", users=30)
    options = ["--protocol", "noisy", "--model", "covisit", "--csv", str(tmp_path / "out.csv")]
    done = evaluate(log, *options, "--min-rating", "4")
    assert done.exit_code == 0, done.output
    assert "30 rated below 4" in done.output and "natural" in done.output
    done = evaluate(log, *options)
    assert done.exit_code == 0, done.output
    assert "there is no natural noise here" in done.output


def test_events_are_chosen_by_kind_and_rating(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log.csv", users=2, length=6)
    found, _, shown = read_study_log(path, LogOptions(min_rating=4.0, kinds=("buy",)))
    assert len(found) == 8 and {"  2 rated below 4", "  2 of other kinds"} <= set(shown)
    high, low, _ = read_study_log(path, LogOptions(min_rating=4.0), low_rated=True)
    assert low is not None and len(high) == 10 and len(low) == 2 and high.item_ids == low.item_ids
    assert np.array(low.item_ids)[low.items].tolist() == ["i0", "i3"]
    with pytest.raises(ValueError, match="no events of kind wish; there are buy, view"):
        read_study_log(path, LogOptions(kinds=("wish",)))


def test_events_against_an_item_are_no_right_answers(tmp_path: Path) -> None:
    lines = ["user,item,time,weight", "u1,tea,2024-01-01T10:00:00Z,1", "u1,cups,2024-01-02T10:00:00Z,0", ""]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines))
    found, _, shown = read_study_log(path, LogOptions())
    assert np.array(found.item_ids)[found.items].tolist() == ["tea"]
    assert "  1 of weight 0" in shown
    log, _ = log_of_file(path, LogOptions())
    assert log.weights.tolist() == [1.0, 0.0]


def test_a_log_as_programs_write_it_is_measured(tmp_path: Path) -> None:
    """JSON lines with ISO times and weights, and a blank line at the end."""
    rows = [line.split(",") for line in write_log(tmp_path / "log.csv").read_text().splitlines()[1:]]
    path = tmp_path / "log.jsonl"
    with path.open("w") as out:
        for user, item, seconds, *_ in rows:
            moment = datetime.fromtimestamp(int(seconds), UTC).isoformat()
            out.write(json.dumps({"user": user, "item": item, "timestamp": moment, "weight": 2.0}) + "\n")
        out.write("\n")
    done = evaluate(path, "--model", "covisit", "--seeds", "1")
    assert done.exit_code == 0 and "nan" not in done.output, done.output
    assert "1,200 events of 60 users" in done.output


def test_a_log_of_short_histories_is_refused_per_user_with_the_way_out(tmp_path: Path) -> None:
    log = write_log(tmp_path / "short.csv", length=5)
    done = freshet("evaluate", str(log), "--device", "cpu")
    assert done.exit_code == 2
    assert "nobody has met 6 different items" in done.errors.splitlines()[-1]
    assert "--protocol global" in done.errors.splitlines()[-1]


def test_what_cannot_be_run_is_one_line(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv")
    (tmp_path / "other.csv").write_text("a,b,c\nx,y,z\n")
    for path, options, words in (
        (tmp_path / "nothing.csv", (), "no such file"),
        (tmp_path / "nothing.npz", (), "there is no file"),
        (tmp_path / "other.csv", (), "which column is user"),
        (log, ("--model", "resnet"), "no model resnet"),
        (log, ("--protocol", "dishonest"), "'dishonest' is not one of"),
        (log, ("--protocol", "global", "--quantile", "1.5"), "quantile"),
        (log, ("--min-rating", "9"), "none of 1,200 events is rated 9 or more"),
    ):
        done = evaluate(path, *options)
        assert words in done.refusal
