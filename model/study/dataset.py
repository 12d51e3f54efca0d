"""The three parts of a study, in time order per user.

Legend: B users, I items, E width of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model.batch import Histories
from model.items import ItemIndex
from model.study.catalogue import Catalogue
from model.study.interactions import Interactions, Timeline

__all__ = ["Dataset", "joined", "load_split", "split_per_user"]


@dataclass(frozen=True)
class Dataset:
    """Three parts of the same B users; each user's interactions in `middle` are later than those in `train`, and those
    in `last` are the latest."""

    name: str
    catalogue: Catalogue
    train: Histories  # about 70 %
    middle: Histories  # about 10 %
    last: Histories  # about 20 %


def joined(newer: Histories, older: Histories) -> Histories:
    """Each user's interactions of both parts; those in `newer` are the later ones. Times are kept."""
    offsets = newer.offsets + older.offsets
    columns = np.empty(offsets[-1], dtype=np.int64)
    times = np.empty(offsets[-1], dtype=np.int64)
    strengths = np.empty(offsets[-1], dtype=np.float32)
    for part, shift in ((newer, np.zeros(len(newer), dtype=np.int64)), (older, newer.lengths)):
        place = np.arange(len(part.columns)) - np.repeat(part.offsets[:-1], part.lengths)
        entry = place + np.repeat(offsets[:-1] + shift, part.lengths)
        columns[entry], times[entry], strengths[entry] = part.columns, part.times_ms, part.strengths
    return Histories(offsets, columns, times, strengths)


def split_per_user(log: Interactions) -> Dataset:
    """Each user's interactions, split 70 : 10 : 20 by time. A repeated item has its last time.

    Raises ValueError when all users have too few interactions for that.
    """
    columns = np.arange(len(log.item_ids))
    whole = Timeline(log, history_items=len(log)).before(int(log.times_ms[-1]) + 1, columns)
    last, rest = whole.split(np.round(whole.lengths * 0.2).astype(np.int64))
    middle, train = rest.split(np.round(whole.lengths * 0.1).astype(np.int64))
    if not len(middle.columns):
        raise ValueError(
            f"{log.name}: nobody has met 6 different items, so no user's items can be cut 70 : 10 : 20. "
            "Cut all of them at one moment: --protocol global"
        )
    return Dataset(log.name, Catalogue(ItemIndex(log.item_ids)), train, middle, last)


def load_split(path: Path) -> Dataset:
    """A `.npz` file with `train`, `next10` and `last20`, rows of (user, item) in each user's time order.

    `item_embedding` [I, E] is used if the file has it. Such a file has no timestamps. Raises ValueError.
    """
    if not path.exists():
        raise ValueError(f"there is no file {path}")
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
    catalogue = Catalogue(index, None if embedding is None else torch.from_numpy(embedding), timed=False)
    return Dataset(path.name, catalogue, train, middle, last)


def _later(histories: Histories, by: np.ndarray) -> Histories:
    """Histories whose times are ranks, moved up by the `by` [B] earlier interactions."""
    times = histories.times_ms + np.repeat(by, histories.lengths)
    return Histories(histories.offsets, histories.columns, times, histories.strengths)
