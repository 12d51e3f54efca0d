"""The output of `freshet evaluate`: progress while models train, and one table at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from model.study.dataset import Dataset
from model.study.figures import HELD_OUT_METRICS, NEXT_METRICS
from model.study.interactions import Interactions
from model.study.noise import NoiseStudy, run_noisy
from model.study.progress import OnMeasured
from model.study.progress import Progress as OnProgress
from model.study.protocols import Protocol, run
from model.study.report import Row, Study

__all__ = ["Comparison", "compare"]

_Outcome = TypeVar("_Outcome")

_HEADINGS = {
    "coverage": "coverage",
    "gini": "Gini",
    "novelty": "novelty (bits)",
    "train_seconds": "train (s)",
    "users_per_second": "users/s",
}
_FORMATS = {"coverage": ".3f", "gini": ".3f", "novelty": ".2f", "train_seconds": ",.1f", "users_per_second": ",.0f"}


@dataclass(frozen=True)
class Comparison:
    """The models to compare, and how."""

    protocol: Protocol
    models: Sequence[str] | None  # None: the usual ones of the protocol
    seeds: int
    against: str | None  # None: the usual row of the protocol
    quantile: float
    device: torch.device
    variety: Sequence[float] = ()


def compare(
    asked: Comparison, source: Interactions | Dataset, low_rated: Interactions | None, console: Console
) -> Study | NoiseStudy:
    """Train and measure models, and print the comparison. Raises ValueError for combinations that cannot be run."""
    if asked.protocol == "noisy":
        if asked.variety:
            raise ValueError("variety is measured with the protocol per-user")
        noisy = _with_progress(
            console,
            HELD_OUT_METRICS,
            lambda progress, on_measured: run_noisy(
                source,
                low_rated,
                models=asked.models,
                seeds=asked.seeds,
                against=asked.against,
                device=asked.device,
                progress=progress,
                on_measured=on_measured,
            ),
        )
        console.print(_noise_table(noisy))
        return noisy
    study = _with_progress(
        console,
        NEXT_METRICS if asked.protocol == "global" else HELD_OUT_METRICS,
        lambda progress, on_measured: run(
            source,
            protocol=asked.protocol,
            models=asked.models,
            seeds=asked.seeds,
            against=asked.against,
            quantile=asked.quantile,
            variety=asked.variety,
            device=asked.device,
            progress=progress,
            on_measured=on_measured,
        ),
    )
    console.print(_study_table(study))
    if study.slices:
        console.print(_slices_table(study))
    return study


def _with_progress(
    console: Console, metrics: tuple[str, ...], study: Callable[[OnProgress, OnMeasured], _Outcome]
) -> _Outcome:
    """Run `study` with a progress bar, and print a line after each training that has been measured."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        return study(
            lambda doing, done: bar.update(task, description=doing, completed=done),
            lambda row: bar.console.print(_newest(row, metrics), soft_wrap=True, markup=False),
        )


def _newest(row: Row, metrics: tuple[str, ...]) -> str:
    """The figures of the row's newest seed, so that a study that is interrupted after hours has shown them."""
    figures = ", ".join(f"{name} {value:.4f}" for name, value in zip(metrics, row.means()[-1], strict=True))
    settings = "; ".join(f"{name} {value:g}" for name, value in row.settings[-1].items())
    training = f"{row.train_seconds[-1]:.0f} s of training"
    return f"{row.model} ({len(row.figures)}): {figures} [{'; '.join(filter(None, (settings, training)))}]"


def _study_table(study: Study) -> Table:
    """A model's mean and standard deviation over seeds, and below it the paired difference with its interval."""
    table = Table(title=f"{study.dataset}, {study.protocol} protocol; below: paired 95 % interval to {study.against}")
    records = [record for record in study.records() if record.get("slice", "all") == "all"]
    others = [name for name in _HEADINGS if name in records[0]]
    table.add_column("model", overflow="fold")
    for name in (*study.metrics, *(_HEADINGS[name] for name in others)):
        table.add_column(name, justify="right", overflow="fold")
    for record in records:
        cells = [_metric(record, name) for name in study.metrics]
        table.add_row(record["model"], *cells, *(f"{record[name]:{_FORMATS[name]}}" for name in others))
    return table


def _slices_table(study: Study) -> Table:
    """HR@10 and NDCG@20 of every model by part of the questions."""
    names = study.metrics[0], study.metrics[-1]
    table = Table(title=f"{names[0]} / {names[1]} by part of the questions")
    records = study.records()
    table.add_column("part", overflow="fold")
    table.add_column("questions", justify="right", overflow="fold")
    for row in study.rows:
        table.add_column(row.model, justify="right", overflow="fold")
    for part in dict.fromkeys(record["slice"] for record in records):
        inside = [record for record in records if record["slice"] == part]
        figures = (f"{record[names[0]]:.4f} / {record[names[1]]:.4f}" for record in inside)
        table.add_row(part, f"{inside[0]['rows']:,}", *figures)
    return table


def _noise_table(study: NoiseStudy) -> Table:
    """NDCG@20 of every model by noise, and as a share of its NDCG@20 without noise."""
    clean = next(iter(study.studies.values()))
    table = Table(title=f"{clean.dataset}: {clean.metrics[-1]} on the clean test part, and the share kept, by noise")
    table.add_column("model", overflow="fold")
    for noise in study.studies:
        table.add_column(noise, justify="right", overflow="fold")
    for row in clean.rows:
        cells = []
        for noise, one in study.studies.items():
            value = float(one.row(row.model).means()[:, -1].mean())
            cells.append(f"{value:.4f}\n{study.kept(noise, row.model):.0%}")
        table.add_row(row.model, *cells)
    return table


def _metric(record: Mapping[str, Any], name: str) -> str:
    value = f"{record[name]:.4f}" + (f" ± {record[f'{name} sd']:.4f}" if record["seeds"] > 1 else "")
    if record[f"{name} difference mean"] == "":
        return value
    mean, low, high = (record[f"{name} difference {part}"] for part in ("mean", "low", "high"))
    return f"{value}\n{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
