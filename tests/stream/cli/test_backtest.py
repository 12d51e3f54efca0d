"""`freshet backtest` at the terminal: tables and files at the end, one line for what cannot be, and going on."""

import csv
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from stream.cli.main import app
from tests.support.backtest_world import walks

ROOT = Path(__file__).parents[3]


def write_log(path: Path, users: int = 60) -> Path:
    log = walks(users=users)
    rows = [
        f"{log.user_ids[u]},{log.item_ids[i]},{t}"
        for u, i, t in zip(log.users.tolist(), log.items.tolist(), log.times_ms.tolist(), strict=True)
    ]
    path.write_text("\n".join(["user,item,timestamp", *rows]) + "\n")
    return path


def backtest(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["backtest", "--device", "cpu", "--threads", "1", *arguments])


def test_it_prints_its_tables_writes_its_files_and_reads_a_finished_one(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv")
    out, picture = tmp_path / "out.csv", tmp_path / "out.png"
    options = [str(log), "--folder", str(tmp_path / "folder"), "--first-interactions", "300", "--round-days", "9"]
    options += ["--first-users", "10", "--arm", "fresh-popularity", "--arm", "item-item", "--arm", "frozen"]
    done = backtest(*options, "--csv", str(out), "--png", str(picture))
    assert done.exit_code == 0, done.output
    assert "log.csv: 720 events of 60 users and 60 items; 2023-11-15 to" in done.output
    assert "system: v1-" in done.output and "promoted (schedule;" in done.output
    for words in ("questions since the first model", "NDCG@10 over fresh-popularity", "history 2-5", "older item"):
        assert words in " ".join(done.output.split()), words
    with out.open() as file:
        assert {record["arm"] for record in csv.DictReader(file)} == {
            "fresh-popularity",
            "item-item",
            "frozen",
            "system",
        }
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = backtest(*options)
    assert again.exit_code == 0 and "promoted (schedule;" not in again.output  # nothing is trained twice


def test_sigterm_keeps_what_was_done(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv")
    options = [str(log), "--folder", str(tmp_path / "folder"), "--first-interactions", "300", "--first-users", "10"]
    quick = [f"--set=trainer.fine_tune.{name}" for name in ("first_epochs=4", "first_updates=1", "updates=1")]
    arms = ["--arm", "frozen", "--against", "system", "--device", "cpu", "--threads", "1"]
    command = [sys.executable, "-m", "stream.cli", *quick, "backtest", *arms, *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "promoted" in line:
            process.terminate()
            break
    rest = process.stderr.read()
    assert process.wait(60) == 130, rest
    assert "the same command goes on" in " ".join(rest.split())
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "questions since the first model" in done.stdout and "v1-" not in done.stderr


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", users=5)
    (tmp_path / "other.csv").write_text("a,b,c\nx,y,z\n")
    for arguments, words in (
        ((), "give a log, or --from-topic"),
        ((str(tmp_path / "nothing.csv"),), "no such file"),
        ((str(tmp_path / "other.csv"),), "which column is user"),
        ((str(log), "--arm", "oracle"), "no arm 'oracle'"),
        ((str(log), "--arm", "frozen", "--against", "retrained"), "is no arm of this backtest"),
        ((str(log), "--kinds", "buy"), "which column is event"),
    ):
        done = backtest("--folder", str(tmp_path / "folder"), *arguments)
        assert done.exit_code == 2 and words in " ".join(done.output.replace("│", " ").split()), done.output
