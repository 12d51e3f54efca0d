"""Interaction logs as the three parts of a study, in time order per user.

Legend: B users, I items.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

from model.batch import Histories
from model.items import ItemIndex

__all__ = ["Dataset", "item_embedding", "joined", "load_dataset"]


@dataclass(frozen=True)
class Dataset:
    """Parts of the same B users; every interaction of `middle` is later than the user's in `train`, and so on."""

    name: str
    items: ItemIndex
    train: Histories  # about 70 %
    middle: Histories  # about 10 %
    last: Histories  # about 20 %
    embedding: Tensor | None = None  # float32 [I, E], where the file brings one


def joined(newer: Histories, older: Histories) -> Histories:
    """Each user's interactions of both, `newer` being the later ones. Times are kept."""
    offsets = newer.offsets + older.offsets
    columns = np.empty(offsets[-1], dtype=np.int64)
    times = np.empty(offsets[-1], dtype=np.int64)
    strengths = np.empty(offsets[-1], dtype=np.float32)
    for part, shift in ((newer, np.zeros(len(newer), dtype=np.int64)), (older, newer.lengths)):
        place = np.arange(len(part.columns)) - np.repeat(part.offsets[:-1], part.lengths)
        entry = place + np.repeat(offsets[:-1] + shift, part.lengths)
        columns[entry], times[entry], strengths[entry] = part.columns, part.times_ms, part.strengths
    return Histories(offsets, columns, times, strengths)


def load_dataset(path: Path, *, least_rating: float = 4.0) -> Dataset:
    """A `.npz` with `train`, `next10`, `last20` of (user, item) rows in time order, or a table of interactions.

    A table is `.csv`, `.tsv` or `.inter`, plain or `.gz`, with columns named like user, item, timestamp and, if there
    are ratings, rating (rows below `least_rating` are left out). Each user's interactions are cut 70 : 10 : 20 by
    time. Raises ValueError for anything else.
    """
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    return _from_npz(path) if path.suffix == ".npz" else _from_table(path, least_rating)


def _from_npz(path: Path) -> Dataset:
    with np.load(path, allow_pickle=False) as stored:
        missing = {"train", "next10", "last20"} - set(stored.files)
        if missing:
            raise ValueError(f"{path} has no array {', '.join(sorted(missing))}")
        parts = [np.asarray(stored[name], dtype=np.int64) for name in ("train", "next10", "last20")]
        embedding = stored["item_embedding"].astype(np.float32) if "item_embedding" in stored.files else None
    users, items = (max(int(part[:, axis].max()) for part in parts) + 1 for axis in (0, 1))
    train, middle, last = (Histories.from_rows(part, users) for part in parts)
    middle = _later(middle, train.lengths)
    last = _later(last, train.lengths + middle.lengths)
    index = ItemIndex([str(item) for item in range(items)])
    return Dataset(path.name, index, train, middle, last, None if embedding is None else torch.from_numpy(embedding))


def _later(histories: Histories, by: np.ndarray) -> Histories:
    """Ranks as times, moved past `by` [B] earlier interactions."""
    times = histories.times_ms + np.repeat(by, histories.lengths)
    return Histories(histories.offsets, histories.columns, times, histories.strengths)


def _from_table(path: Path, least_rating: float) -> Dataset:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        header = file.readline().rstrip("\n")
        delimiter = "\t" if "\t" in header else ","
        names = [name.split(":")[0].strip().lower() for name in header.split(delimiter)]

        def find(*candidates: str) -> int | None:
            return next((names.index(name) for name in candidates if name in names), None)

        user, item = find("user_id", "user", "userid"), find("item_id", "item", "itemid", "movieid", "movie_id")
        time, rating = find("timestamp", "time", "ts"), find("rating", "weight")
        if user is None or item is None or time is None:
            raise ValueError(f"{path} needs columns user, item and timestamp; it has {', '.join(names)}")
        rows = [
            (float(row[time]), row[user], row[item])
            for row in csv.reader(file, delimiter=delimiter)
            if rating is None or float(row[rating]) >= least_rating
        ]
    rows.sort()
    by_user: dict[str, dict[str, float]] = {}
    for moment, name, thing in rows:
        by_user.setdefault(name, {})[thing] = moment  # the last time counts
    index = ItemIndex(sorted({thing for history in by_user.values() for thing in history}))
    users = []
    for history in by_user.values():
        newest_first = sorted(history.items(), key=lambda entry: (-entry[1], entry[0]))
        times = [int(moment * 1000) for _, moment in newest_first]
        users.append(([thing for thing, _ in newest_first], times, [1.0] * len(times)))
    whole = Histories.pack(index, users)
    last, rest = whole.split(np.round(whole.lengths * 0.2).astype(np.int64))
    middle, train = rest.split(np.round(whole.lengths * 0.1).astype(np.int64))
    return Dataset(path.name, index, train, middle, last)


def item_embedding(histories: Histories, items: int, width: int = 64) -> Tensor:
    """float32 [I, width] from the interactions alone: the right singular vectors of the degree-normalised matrix,
    scaled by their singular values, which is what linear graph convolution converges to (He et al. 2020)."""
    histories = histories.known()
    ones = np.ones(len(histories.columns))
    seen = sparse.csr_matrix((ones, histories.columns, histories.offsets), (len(histories), items))
    users = sparse.diags(1 / np.sqrt(np.maximum(histories.lengths, 1)))
    popularity = sparse.diags(1 / np.sqrt(np.maximum(np.bincount(histories.columns, minlength=items), 1)))
    width = min(width, min(seen.shape) - 1)
    _, values, vectors = svds(users @ seen @ popularity, k=width, v0=np.ones(min(seen.shape)))
    return torch.from_numpy(np.ascontiguousarray(vectors.T * values, dtype=np.float32))
