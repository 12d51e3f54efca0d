"""What `freshet evaluate` shows: progress while models train, one table at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from model.study.protocols import METRICS, Protocol, Row, Study, run

__all__ = ["compare"]


def compare(
    path: Path,
    console: Console,
    *,
    protocol: Protocol,
    models: Sequence[str] | None,
    seeds: int,
    against: str,
    device: torch.device,
    csv: Path | None,
    png: Path | None,
) -> Study:
    """Train and measure models on a log, and print how they compare. Raises ValueError for what cannot be run."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        study = run(
            path,
            protocol=protocol,
            models=models,
            seeds=seeds,
            against=against,
            device=device,
            progress=lambda doing, done: bar.update(task, description=doing, completed=done),
            on_measured=lambda row: bar.console.print(_newest(row), soft_wrap=True, markup=False),
        )
    console.print(_table(study))
    if csv is not None:
        study.write_csv(csv)
    if png is not None:
        study.write_png(png)
    return study


def _newest(row: Row) -> str:
    """What the row's newest seed came to: a study of hours that is cut short has told what it knows."""
    figures = ", ".join(f"{name} {value:.4f}" for name, value in zip(METRICS, row.means[-1], strict=True))
    settings = "; ".join(f"{name} {value:g}" for name, value in row.settings[-1].items())
    return f"{row.model} ({len(row.figures)}): {figures} [{settings}; {row.train_seconds[-1]:.0f} s of training]"


def _table(study: Study) -> Table:
    """A model's mean and standard deviation over seeds, and below it what it gains, with the interval."""
    table = Table(title=f"{study.dataset}, {study.protocol} protocol; below: paired 95 % interval to {study.against}")
    table.add_column("model", overflow="fold")
    for name in (*METRICS, "coverage", "Gini", "novelty (bits)", "train (s)", "users/s"):
        table.add_column(name, justify="right", overflow="fold")
    for record in study.records():
        cells = [_metric(record, name) for name in METRICS]
        cells += [f"{record['coverage']:.3f}", f"{record['gini']:.3f}", f"{record['novelty']:.2f}"]
        cells += [f"{record['train_seconds']:,.1f}", f"{record['users_per_second']:,.0f}"]
        table.add_row(record["model"], *cells)
    return table


def _metric(record: Mapping[str, Any], name: str) -> str:
    value = f"{record[name]:.4f}" + (f" ± {record[f'{name} sd']:.4f}" if record["seeds"] > 1 else "")
    if record[f"{name} difference mean"] == "":
        return value
    mean, low, high = (record[f"{name} difference {part}"] for part in ("mean", "low", "high"))
    return f"{value}\n{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
