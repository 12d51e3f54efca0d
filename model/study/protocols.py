"""Models side by side under one protocol: trained over seeds, measured per user, compared in pairs.

    paper    fit on train, choose the settings on last, measure middle (the input is train; train and last are masked):
             what the published tables did
    honest   choose the settings on middle (fitted on train), refit on train and middle, measure last with both as the
             input: what a claim needs

Settings are chosen by NDCG@20, or in `paper` by Recall@20 as the authors did.

Legend: B users, S seeds, K the length of the lists.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from model.batch import Histories
from model.evaluate import Interval, ndcg, paired_bootstrap, ranks_hit, recall
from model.ranker import Ranked, Ranker
from model.study.contenders import CONTENDERS, Contender, Settings, Trained
from model.study.dataset import Dataset, joined, load_dataset

__all__ = ["METRICS", "USUAL", "Protocol", "Row", "Study", "measure", "rank_unmasked", "run"]

METRICS = ("Recall@10", "Recall@20", "NDCG@10", "NDCG@20")
Protocol = Literal["paper", "honest"]

_BASELINES = ("popularity", "covisit", "itemknn", "ease", "ease-recent")
USUAL: dict[Protocol, tuple[str, ...]] = {  # what is compared unless told otherwise
    "paper": (*_BASELINES, "diffrec", "t-diffrec-linear", "l-diffrec", "lt-diffrec"),
    "honest": (*_BASELINES, "t-diffrec", "stream"),
}

Progress = Callable[[str, float], None]  # (what is being done, how far from 0 to 1)

_CUTOFF = 20
_PATIENCE = 4  # candidates of one training without a better one, then it ends


@dataclass(frozen=True)
class Figures:
    """Of one fitted model."""

    per_user: np.ndarray  # float64 [4, B] in the order of METRICS, NaN for users without held-out items
    coverage: float  # share of the catalogue in anybody's first 20
    gini: float  # of how often items are shown: 0 all alike, 1 one item only
    novelty: float  # mean self-information of what is shown, bits
    users_per_second: float


@dataclass
class Row:
    """Of one model over its seeds."""

    model: str
    settings: list[Settings] = field(default_factory=list)
    figures: list[Figures] = field(default_factory=list)
    train_seconds: list[float] = field(default_factory=list)

    @property
    def per_user(self) -> np.ndarray:
        """[4, B], mean over seeds."""
        return np.mean([figures.per_user for figures in self.figures], axis=0)

    @property
    def means(self) -> np.ndarray:
        """[S, 4]"""
        return np.array([np.nanmean(figures.per_user, axis=1) for figures in self.figures])

    def mean_of(self, name: str) -> float:
        """Of one of the other figures, over seeds."""
        return float(np.mean([getattr(figures, name) for figures in self.figures]))


def rank_unmasked(ranker: Ranker, histories: Histories, masked: Histories | None, k: int) -> Ranked:
    """The best `k` [B, K] of what neither `histories` nor `masked` holds."""
    if masked is None:
        return ranker.rank(histories, k)
    ranked = ranker.rank(histories, k + int(masked.lengths.max(initial=0)))
    allowed = ~ranks_hit(ranked, masked) & (ranked.columns >= 0)
    order = np.argsort(~allowed, axis=1, kind="stable")[:, :k]
    allowed = np.take_along_axis(allowed, order, 1)
    columns = np.where(allowed, np.take_along_axis(ranked.columns, order, 1), -1)
    return Ranked(columns, np.where(allowed, np.take_along_axis(ranked.scores, order, 1), -np.inf).astype(np.float32))


def measure(
    ranker: Ranker,
    histories: Histories,
    held_out: Histories,
    items: int,
    popularity: np.ndarray,
    masked: Histories | None = None,
) -> Figures:
    """`popularity` [I] counts interactions of the training part; novelty is -log2 of an item's share of users in it."""
    start = time.perf_counter()
    ranked = rank_unmasked(ranker, histories, masked, _CUTOFF)
    seconds = time.perf_counter() - start
    hits, wanted = ranks_hit(ranked, held_out), held_out.lengths
    per_user = np.stack(
        [recall(hits, wanted, 10), recall(hits, wanted, 20), ndcg(hits, wanted, 10), ndcg(hits, wanted, 20)]
    )
    shown = ranked.columns[ranked.columns >= 0]
    often = np.sort(np.bincount(shown, minlength=items)).astype(np.float64)
    place = np.arange(1, items + 1)
    gini = float(((2 * place - items - 1) * often).sum() / max(items * often.sum(), 1))
    share = np.maximum(popularity[shown], 1) / max(len(histories), 1)
    return Figures(
        per_user,
        coverage=float((often > 0).mean()),
        gini=gini,
        novelty=float(-np.log2(np.minimum(share, 1)).mean()) if len(shown) else float("nan"),
        users_per_second=len(histories) / seconds,
    )


@dataclass(frozen=True)
class Study:
    """The outcome, in the order asked for."""

    dataset: str
    protocol: Protocol
    against: str
    rows: list[Row]

    def row(self, model: str) -> Row:
        """The row of a model by its name."""
        return next(row for row in self.rows if row.model == model)

    def differences(self, model: str, *, seed: int = 0) -> list[Interval]:
        """Of each metric, `model` - `against`, paired by user, with a 95 % bootstrap interval."""
        ours, theirs = self.row(model).per_user, self.row(self.against).per_user
        rng = np.random.default_rng(seed)
        return [paired_bootstrap(ours[metric], theirs[metric], rng) for metric in range(len(METRICS))]

    def records(self) -> list[dict[str, Any]]:
        """One flat record per model, as written to CSV."""
        records = []
        for row in self.rows:
            record: dict[str, Any] = {"model": row.model, "seeds": len(row.figures)}
            compared = row.model != self.against and any(other.model == self.against for other in self.rows)
            intervals = self.differences(row.model) if compared else [None] * len(METRICS)
            for metric, name in enumerate(METRICS):
                record[name] = float(row.means[:, metric].mean())
                record[f"{name} sd"] = float(row.means[:, metric].std(ddof=1)) if len(row.means) > 1 else 0.0
                interval = intervals[metric]
                for part in ("mean", "low", "high"):
                    record[f"{name} difference {part}"] = "" if interval is None else getattr(interval, part)
            for name in ("coverage", "gini", "novelty", "users_per_second"):
                record[name] = row.mean_of(name)
            record["train_seconds"] = float(np.mean(row.train_seconds))
            record["settings"] = "; ".join(f"{name} {value:g}" for name, value in row.settings[0].items())
            records.append(record)
        return records

    def write_csv(self, path: Path) -> None:
        """One line per model, see `records`."""
        records = self.records()
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(records)

    def write_png(self, path: Path) -> None:
        """NDCG@20 with the spread over seeds. Needs matplotlib (`pip install freshet[plots]`)."""
        from matplotlib.figure import Figure

        records = self.records()[::-1]
        figure = Figure(figsize=(7, 0.5 + 0.4 * len(records)), layout="constrained")
        axes = figure.subplots()
        values = [record["NDCG@20"] for record in records]
        colours = ["#b0b0b0" if record["model"] == self.against else "#2a6f97" for record in records]
        axes.barh(
            [record["model"] for record in records],
            values,
            xerr=[record["NDCG@20 sd"] for record in records],
            color=colours,
        )
        for place, value in enumerate(values):
            axes.text(value, place, f" {value:.4f}", va="center", fontsize=8)
        axes.set(xlabel=f"NDCG@20, {self.protocol} protocol, {self.dataset}", xlim=(0, max(values) * 1.15))
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=150)


def run(
    path: Path,
    *,
    protocol: Protocol = "honest",
    models: Sequence[str] | None = None,
    seeds: int = 5,
    against: str = "ease-recent",
    device: torch.device | None = None,
    progress: Progress = lambda doing, done: None,
    on_measured: Callable[[Row], None] = lambda row: None,
) -> Study:
    """Train and measure `models` (None: those of `USUAL`) on the log at `path`.

    `on_measured` gets a row each time one more of its seeds has been measured.

    Raises ValueError for an unknown model or protocol, or a log it cannot read.
    """
    if protocol not in USUAL:
        raise ValueError(f"protocol must be paper or honest, got {protocol!r}")
    models = USUAL[protocol] if models is None else models
    unknown = [name for name in models if name not in CONTENDERS]
    if unknown:
        raise ValueError(f"no model {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    data = load_dataset(path)
    contest = _Contest(data, protocol, device or torch.device("cpu"), progress, on_measured)
    return Study(data.name, protocol, against, [contest.row(name, CONTENDERS[name], seeds) for name in models])


class _Contest:
    def __init__(
        self,
        data: Dataset,
        protocol: Protocol,
        device: torch.device,
        progress: Progress,
        on_measured: Callable[[Row], None],
    ) -> None:
        self._data, self._protocol, self._device = data, protocol, device
        self._progress, self._on_measured = progress, on_measured
        self._both = joined(data.middle, data.train)

    def row(self, name: str, contender: Contender, seeds: int) -> Row:
        row = Row(name)
        chosen: Settings | None = None
        for seed in range(seeds if contender.seeded else 1):
            label = f"{name}, seed {seed + 1} of {seeds}" if contender.seeded else name
            start = time.perf_counter()
            if self._protocol == "paper":
                settings, figures, seconds = self._paper(contender, seed, label)
            else:
                if chosen is None:
                    chosen = self._choose(contender, seed, f"{label}: settings")
                start = time.perf_counter()
                self._progress(label, 0.0)
                (trained,) = contender.train(self._data, self._both, seed, self._device, chosen)
                seconds = time.perf_counter() - start
                settings, figures = chosen, self._measure(trained.ranker, self._both, self._data.last)
            row.settings.append(settings)
            row.figures.append(figures)
            row.train_seconds.append(seconds)
            self._progress(label, 1.0)
            self._on_measured(row)
        return row

    def _measure(
        self, ranker: Ranker, histories: Histories, held_out: Histories, masked: Histories | None = None
    ) -> Figures:
        items = len(self._data.items)
        popularity = np.bincount(histories.columns, minlength=items)
        return measure(ranker, histories, held_out, items, popularity, masked)

    def _paper(self, contender: Contender, seed: int, label: str) -> tuple[Settings, Figures, float]:
        data = self._data
        best: tuple[float, Trained] | None = None
        start, since, measuring = time.perf_counter(), 0, 0.0
        for done, trained in enumerate(contender.train(data, data.train, seed, self._device, None), 1):
            before = time.perf_counter()
            value = float(np.nanmean(self._measure(trained.ranker, data.train, data.last).per_user[1]))
            since += 1
            if best is None or value > best[0]:
                best, since = (value, trained), 0
            measuring += time.perf_counter() - before
            self._progress(label, done / contender.candidates)
            if contender.seeded and since >= _PATIENCE:
                break
        seconds = time.perf_counter() - start - measuring
        assert best is not None  # every contender has a candidate
        chosen = best[1]
        return chosen.settings, self._measure(chosen.ranker, data.train, data.middle, masked=data.last), seconds

    def _choose(self, contender: Contender, seed: int, label: str) -> Settings:
        data = self._data
        best: tuple[float, Settings] = (-1.0, {})
        since = 0
        for done, trained in enumerate(contender.train(data, data.train, seed, self._device, None), 1):
            value = float(np.nanmean(self._measure(trained.ranker, data.train, data.middle).per_user[3]))
            since += 1
            if value > best[0]:
                best, since = (value, trained.settings), 0
            self._progress(label, done / contender.candidates)
            if contender.seeded and since >= 2 * _PATIENCE:
                break
        return best[1]
