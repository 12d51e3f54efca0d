"""The output of `freshet backtest`: its progress, a line for each round, and the tables at the end."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from model.study.figures import NEXT_METRICS
from stream.backtest.config import BacktestConfig, Interrupted
from stream.backtest.event_log import EventLog
from stream.backtest.outcome import Outcome
from stream.backtest.run import Backtest
from stream.backtest.system import RoundReport
from stream.backtest.windows import fitting_windows
from stream.local.terminal import output

__all__ = ["run_and_report"]

_HOUR_MS = 3_600_000


def run_and_report(
    log: EventLog,
    config: BacktestConfig,
    folder: Path,
    device: torch.device,
    stop: threading.Event,
    against: str,
    csv: Path | None,
    png: Path | None,
) -> bool:
    """Run the backtest and print its result; False when it was interrupted. Raises `BacktestError`."""
    errors = Console(stderr=True)
    errors.print(_summary(log, config), soft_wrap=True, markup=False, highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("", total=len(log))
        try:
            outcome = Backtest(
                log,
                config,
                folder,
                device,
                stop=stop,
                progress=lambda doing, events: bar.update(task, description=doing, completed=events),
                on_round=lambda arm, report: bar.console.print(_round(arm, report), soft_wrap=True, markup=False),
            ).run()
        except Interrupted:
            errors.print(f"interrupted; the same command goes on with what is in {folder}", soft_wrap=True)
            return False
    console = output()
    if not len(outcome.events):
        raise ValueError("no event could be asked: none speaks for its item")
    if outcome.first_event == len(log):
        errors.print("no model passed the gate: every arm with a model answered with popularity", soft_wrap=True)
    console.print(_main_table(outcome, against))
    console.print(_parts_table(outcome, against))
    if csv is not None:
        outcome.write_csv(csv, against)
    if png is not None:
        outcome.write_png(png, against)
    return True


def _summary(log: EventLog, config: BacktestConfig) -> str:
    users, items = len(set(log.users.tolist())), len(set(log.items.tolist()))
    hours = (config.windows or fitting_windows(log)).window_ms / _HOUR_MS
    parts = [
        f"{log.name}: {len(log):,} events of {users:,} users and {items:,} items",
        f"{_day(int(log.times_ms[0]))} to {_day(int(log.times_ms[-1]))}",
        *([f"left out: {log.left_out}"] if log.left_out else []),
        f"a round every {config.round_days:g} days, drift in windows of {hours:g} hours",
    ]
    return "; ".join(parts)


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"


def _round(arm: str, report: RoundReport) -> str:
    why = f": {report.why}" if report.why else ""
    return (
        f"{_day(report.time_ms)} {arm}: {report.version} {report.outcome} ({report.trigger}; {report.users:,} users, "
        f"{report.train_seconds:.1f} s){why}"
    )


def _main_table(outcome: Outcome, against: str) -> Table:
    ndcg = NEXT_METRICS.index("NDCG@10")
    table = Table(title=f"{outcome.log.name}: {len(outcome.events):,} questions since the first model")
    table.add_column("arm", overflow="fold")
    for name in (*NEXT_METRICS, f"NDCG@10 over {against}, 95 % at any time", "rounds", "train (s)", "lists/s"):
        table.add_column(name, justify="right", overflow="fold")
    for arm in outcome.arms:
        cells = [f"{value:.4f}" for value in outcome.figures(arm).mean(1)]
        difference = ""
        if arm != against:
            interval = outcome.difference(arm, against, ndcg)
            difference = f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
        rounds = outcome.rounds.get(arm)
        promoted = "" if rounds is None else f"{sum(r.outcome == 'promoted' for r in rounds)} of {len(rounds)}"
        speed = (outcome.ranks[0] >= 0).sum() / max(outcome.rank_seconds.get(arm, 0.0), 1e-9)
        table.add_row(arm, *cells, difference, promoted, f"{outcome.train_seconds[arm]:,.1f}", f"{speed:,.0f}")
    return table


def _parts_table(outcome: Outcome, against: str) -> Table:
    table = Table(title="NDCG@10 by period, history length and age of the item")
    table.add_column("part", overflow="fold")
    table.add_column("questions", justify="right", overflow="fold")
    for arm in outcome.arms:
        table.add_column(arm, justify="right", overflow="fold")
    records = outcome.records(against)
    for part in dict.fromkeys(record["part"] for record in records):
        inside = [record for record in records if record["part"] == part]
        table.add_row(part, f"{inside[0]['questions']:,}", *(f"{record['NDCG@10']:.4f}" for record in inside))
    return table
