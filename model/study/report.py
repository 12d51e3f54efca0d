"""The result of a study: a row per model, the paired differences from one of the rows, and their CSV and picture.

Legend: S seeds, Q rows of figures (users, or questions).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluate import Interval, paired_bootstrap
from model.study.contenders import Settings
from model.study.figures import Figures

__all__ = ["Row", "Study", "write_records"]


@dataclass
class Row:
    """The figures of one model over its seeds."""

    model: str
    settings: list[Settings] = field(default_factory=list)
    figures: list[Figures] = field(default_factory=list)
    train_seconds: list[float] = field(default_factory=list)

    def add(self, settings: Settings, figures: Figures, train_seconds: float) -> None:
        """Add the result of one more seed."""
        self.settings.append(settings)
        self.figures.append(figures)
        self.train_seconds.append(train_seconds)

    @property
    def values(self) -> np.ndarray:
        """[4, Q], mean over seeds."""
        return np.mean([figures.values for figures in self.figures], axis=0)

    def means(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """[S, 4] over the chosen rows of figures; NaN where there are none."""
        chosen = [figures.values[:, rows] for figures in self.figures]
        return np.array([np.nanmean(values, axis=1) if values.size else np.full(4, np.nan) for values in chosen])

    def beyond(self, name: str) -> float:
        """Mean over seeds of one of the other figures."""
        return float(np.mean([figures.beyond[name] for figures in self.figures]))


@dataclass(frozen=True)
class Study:
    """The rows, in the order in which they were requested.

    `slices` are parts of the Q rows of figures that are also reported separately. `groups` int [Q] are the units of the
    bootstrap, such as the questions of one user.
    """

    dataset: str
    protocol: str
    against: str
    metrics: tuple[str, ...]
    rows: list[Row]
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)  # bool [Q] by name
    groups: np.ndarray | None = None

    def row(self, model: str) -> Row:
        """The row of a model by its name."""
        return next(row for row in self.rows if row.model == model)

    def differences(self, model: str, *, seed: int = 0, within: np.ndarray | None = None) -> list[Interval]:
        """`model` - `against` for each metric, paired, with a 95 % bootstrap interval; `within` bool [Q] picks rows."""
        ours, theirs, groups = self.row(model).values, self.row(self.against).values, self.groups
        if within is not None:
            ours, theirs = ours[:, within], theirs[:, within]
            groups = None if groups is None else groups[within]
        rng = np.random.default_rng(seed)
        return [paired_bootstrap(a, b, rng, groups=groups) for a, b in zip(ours, theirs, strict=True)]

    def records(self) -> list[dict[str, Any]]:
        """One flat record per model, as written to CSV; with slices, one per model and slice."""
        if not self.slices:
            return [self._record(row, None) for row in self.rows]
        size = len(next(iter(self.slices.values())))
        parts = {"all": np.ones(size, dtype=bool), **self.slices}
        return [
            {"slice": name, "rows": int(part.sum()), **self._record(row, part)}
            for name, part in parts.items()
            for row in self.rows
            if part.any()
        ]

    def _record(self, row: Row, within: np.ndarray | None) -> dict[str, Any]:
        record: dict[str, Any] = {"model": row.model, "seeds": len(row.figures)}
        means = row.means() if within is None else row.means(within)
        compared = row.model != self.against and any(other.model == self.against for other in self.rows)
        intervals = self.differences(row.model, within=within) if compared else [None] * len(self.metrics)
        for metric, name in enumerate(self.metrics):
            record[name] = float(means[:, metric].mean())
            record[f"{name} sd"] = float(means[:, metric].std(ddof=1)) if len(means) > 1 else 0.0
            interval = intervals[metric]
            for part in ("mean", "low", "high"):
                record[f"{name} difference {part}"] = "" if interval is None else getattr(interval, part)
        for name in row.figures[0].beyond:
            record[name] = row.beyond(name)
        record["train_seconds"] = float(np.mean(row.train_seconds))
        record["settings"] = "; ".join(f"{name} {value:g}" for name, value in row.settings[0].items())
        return record

    def write_csv(self, path: Path) -> None:
        """One line per record, see `records`."""
        write_records(path, self.records())

    def write_png(self, path: Path) -> None:
        """NDCG@20 with the spread over seeds. Needs matplotlib (`pip install freshet[plots]`)."""
        from matplotlib.figure import Figure

        rows = self.rows[::-1]
        figure = Figure(figsize=(7, 0.5 + 0.4 * len(rows)), layout="constrained")
        axes = figure.subplots()
        means = [row.means()[:, -1] for row in rows]
        values = [float(mean.mean()) for mean in means]
        deviations = [float(mean.std(ddof=1)) if len(mean) > 1 else 0.0 for mean in means]
        colours = ["#b0b0b0" if row.model == self.against else "#2a6f97" for row in rows]
        axes.barh([row.model for row in rows], values, xerr=deviations, color=colours)
        for place, value in enumerate(values):
            axes.text(value, place, f" {value:.4f}", va="center", fontsize=8)
        axes.set(xlabel=f"{self.metrics[-1]}, {self.protocol} protocol, {self.dataset}", xlim=(0, max(values) * 1.15))
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=150)


def write_records(path: Path, records: list[dict[str, Any]]) -> None:
    """Write flat records, which have the same keys, as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
