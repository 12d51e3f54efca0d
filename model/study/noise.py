"""False interactions as noise: the protocol `noisy`, the robustness study of the DiffRec paper (section 4).

The test part stays clean; the training and validation parts have noise. The settings of each model are chosen on the
noisy validation part, and its figures on the clean test part are compared with those without noise.

    random    a share of each user's interactions, 10 to 50 %, is added, with items that the user never met
    natural   interactions with low ratings, which are usually left out, are added, and each user's interactions are
              then sampled down to their former number, so that only their kind changes

Legend: B users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.batch import Histories
from model.study.contenders import CONTENDERS
from model.study.dataset import Dataset, split_per_user
from model.study.figures import HELD_OUT_METRICS
from model.study.interactions import Interactions
from model.study.per_user import PerUser
from model.study.progress import OnMeasured, Progress
from model.study.protocols import AGAINST, contestants
from model.study.report import Study, write_records

__all__ = ["RANDOM_SHARES", "NoiseStudy", "run_noisy", "with_natural_noise", "with_random_noise"]

RANDOM_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class NoiseStudy:
    """One study per noise; the first one is without noise."""

    studies: dict[str, Study]  # by noise

    def kept(self, noise: str, model: str) -> float:
        """NDCG@20 with the noise, divided by NDCG@20 without noise."""
        return self._ndcg(noise, model) / self._ndcg(next(iter(self.studies)), model)

    def _ndcg(self, noise: str, model: str) -> float:
        return float(self.studies[noise].row(model).means()[:, -1].mean())

    def records(self) -> list[dict[str, Any]]:
        """One flat record per noise and model."""
        return [
            {"noise": noise, "kept": self.kept(noise, record["model"]), **record}
            for noise, study in self.studies.items()
            for record in study.records()
        ]

    def write_csv(self, path: Path) -> None:
        """One line per noise and model."""
        write_records(path, self.records())

    def write_png(self, path: Path) -> None:
        """NDCG@20 of each model by noise. Needs matplotlib (`pip install freshet[plots]`)."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        noises = list(self.studies)
        clean = self.studies[noises[0]]
        for row in clean.rows:
            axes.plot(noises, [self._ndcg(noise, row.model) for noise in noises], marker="o", label=row.model)
        axes.set(xlabel="noise in training and validation part", ylabel=f"NDCG@20, clean test part, {clean.dataset}")
        axes.legend(fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=150)


def with_random_noise(data: Dataset, share: float, rng: np.random.Generator) -> Dataset:
    """`data` with a `share` of each user's interactions added, at random times of the train and the middle part."""
    items = len(data.catalogue.items)
    met = np.zeros((len(data.train), items), dtype=bool)
    for part in (data.train, data.middle, data.last):
        met[np.repeat(np.arange(len(part)), part.lengths), part.columns] = True

    def disturbed(part: Histories) -> Histories:
        counts = np.minimum(np.round(share * part.lengths).astype(np.int64), items - met.sum(1))
        users = np.repeat(np.arange(len(part)), counts)
        drawn = [np.empty(0, np.int64)]
        for user in np.flatnonzero(counts).tolist():
            columns = rng.choice(np.flatnonzero(~met[user]), counts[user], replace=False)
            met[user, columns] = True  # not drawn again for the other part
            drawn.append(columns)
        entry = part.offsets[:-1][users] + rng.integers(part.lengths[users])  # the interaction whose time it gets
        return _merged(part, users, np.concatenate(drawn), part.times_ms[entry], np.ones(len(users), np.float32), rng)

    return replace(data, train=disturbed(data.train), middle=disturbed(data.middle))


def with_natural_noise(data: Dataset, users: np.ndarray, low_rated: Interactions, rng: np.random.Generator) -> Dataset:
    """`data` with low-rated interactions in place of some of its own; its rows are the log's `users` int64 [B]."""
    row = np.full(int(max(users.max(), low_rated.users.max())) + 1, -1)
    row[users] = np.arange(len(users))
    rows = row[low_rated.users]
    end_of_train = _newest(data.train)
    end_of_middle = np.maximum(end_of_train, _newest(data.middle))

    def disturbed(part: Histories, after_ms: np.ndarray, until_ms: np.ndarray) -> Histories:
        times = low_rated.times_ms
        noise = np.flatnonzero((rows >= 0) & (times > after_ms[rows]) & (times <= until_ms[rows]))
        added = rows[noise], low_rated.items[noise], times[noise], low_rated.strengths[noise]
        return _thinned(_merged(part, *added, rng), part.lengths, rng)

    before_all = np.full(len(users), np.iinfo(np.int64).min)
    train = disturbed(data.train, before_all, end_of_train)
    return replace(data, train=train, middle=disturbed(data.middle, end_of_train, end_of_middle))


def _newest(part: Histories) -> np.ndarray:
    """int64 [B] times of each user's newest interaction, the least integer for users without any."""
    newest = np.full(len(part), np.iinfo(np.int64).min)
    some = part.lengths > 0
    newest[some] = part.times_ms[part.offsets[:-1][some]]
    return newest


def _merged(
    part: Histories,
    users: np.ndarray,
    columns: np.ndarray,
    times_ms: np.ndarray,
    strengths: np.ndarray,
    rng: np.random.Generator,
) -> Histories:
    """The part with the given entries added, newest first; entries of one time are in random order."""
    users = np.concatenate([np.repeat(np.arange(len(part)), part.lengths), users])
    columns = np.concatenate([part.columns, columns])
    times_ms = np.concatenate([part.times_ms, times_ms])
    strengths = np.concatenate([part.strengths, strengths])
    order = np.lexsort((rng.random(len(users)), -times_ms, users))
    offsets = _offsets(np.bincount(users, minlength=len(part)))
    return Histories(offsets, columns[order], times_ms[order], strengths[order])


def _thinned(part: Histories, lengths: np.ndarray, rng: np.random.Generator) -> Histories:
    """`lengths` [B] random entries of each user, newest first."""
    users = np.repeat(np.arange(len(part)), part.lengths)
    order = np.lexsort((rng.random(len(users)), users))
    place = np.arange(len(users)) - part.offsets[:-1][users]
    kept = np.sort(order[place < lengths[users]])
    return Histories(_offsets(lengths), part.columns[kept], part.times_ms[kept], part.strengths[kept])


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def run_noisy(
    source: Interactions | Dataset,
    low_rated: Interactions | None,
    *,
    models: Sequence[str] | None = None,
    seeds: int = 5,
    against: str | None = None,
    device: torch.device | None = None,
    progress: Progress = lambda doing, done: None,
    on_measured: OnMeasured = lambda row: None,
) -> NoiseStudy:
    """Train and measure `models` without noise, with each share of random noise and, if there are `low_rated`
    interactions (users and items numbered as in `source`), with natural noise. Raises ValueError.
    """
    names = contestants("noisy", models)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    data = source if isinstance(source, Dataset) else split_per_user(source)
    rng = np.random.default_rng(0)
    disturbed = {"none": data}
    disturbed |= {f"random {share:.0%}": with_random_noise(data, share, rng) for share in RANDOM_SHARES}
    if low_rated is not None and isinstance(source, Interactions):
        disturbed["natural"] = with_natural_noise(data, np.unique(source.users), low_rated, rng)

    def study(noise: str, noisy: Dataset) -> Study:
        contest = PerUser(
            noisy,
            as_published=False,
            device=device or torch.device("cpu"),
            progress=lambda doing, done: progress(f"noise {noise}: {doing}", done),
            on_measured=lambda row: on_measured(replace(row, model=f"{row.model}, noise {noise}")),
        )
        rows = [contest.row(name, CONTENDERS[name], seeds) for name in names]
        return Study(data.name, "noisy", against or AGAINST["noisy"], HELD_OUT_METRICS, rows)

    return NoiseStudy({noise: study(noise, noisy) for noise, noisy in disturbed.items()})
