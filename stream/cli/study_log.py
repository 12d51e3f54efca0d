"""Logs as studies take them: arrays, and a line that says what was read and what was left out."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from model.study.interactions import Interactions
from stream.sources.interaction_log import Columns, InteractionLog, read_log

__all__ = ["read_low_rated", "read_study_log"]


def read_study_log(
    path: Path, columns: Columns, min_rating: float | None, kinds: Collection[str] = ()
) -> tuple[Interactions, str]:
    """The log, each interaction of strength 1, and its summary; `kinds` keeps events of these kinds only.

    Raises `LogError`, and ValueError when nothing is left.
    """
    log = read_log(path, columns, min_rating)
    chosen = _of_kinds(log, kinds, path)
    found = _interactions(path, log, chosen)
    first, last = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (found.times_ms[0], found.times_ms[-1]))
    users, items = len(np.unique(found.users)), len(np.unique(found.items))
    summary = f"{path.name}: {len(found):,} events of {users:,} users and {items:,} items"
    summary += f", {first:%Y-%m-%d} to {last:%Y-%m-%d}"
    left_out = [
        f"{count:,} {why}"
        for count, why in (
            (log.below_minimum, f"rated below {min_rating}"),
            (int((~chosen).sum()), f"of other kinds than {', '.join(kinds)}"),
            (int(chosen.sum()) - len(found), "repeated lines"),
            (log.malformed, "malformed rows"),
        )
        if count
    ]
    return found, f"{summary}; left out: {', '.join(left_out)}" if left_out else summary


def read_low_rated(
    path: Path, columns: Columns, min_rating: float, kinds: Collection[str] = ()
) -> tuple[Interactions, Interactions]:
    """(interactions rated at least `min_rating`, the others), with users and items numbered alike in both.

    Raises `LogError`, and ValueError when one of them is empty.
    """
    whole, kept = read_log(path, columns), read_log(path, columns, min_rating)
    user_of = {user: number for number, user in enumerate(whole.user_ids)}
    item_of = {item: number for number, item in enumerate(whole.item_ids)}
    users = np.array([user_of[user] for user in kept.user_ids], dtype=np.int64)[kept.users]
    items = np.array([item_of[item] for item in kept.item_ids], dtype=np.int64)[kept.items]
    rows = np.stack([whole.users.astype(np.int64), whole.items.astype(np.int64), whole.timestamps], 1)
    high = np.isin(_as_values(rows), _as_values(np.stack([users, items, kept.timestamps], 1)))
    chosen = _of_kinds(whole, kinds, path)
    return _interactions(path, whole, chosen & high), _interactions(path, whole, chosen & ~high)


def _as_values(rows: np.ndarray) -> np.ndarray:
    """Each row of int64 as one comparable value."""
    return np.ascontiguousarray(rows).view([("", rows.dtype)] * rows.shape[1]).ravel()


def _of_kinds(log: InteractionLog, kinds: Collection[str], path: Path) -> np.ndarray:
    if not kinds:
        return np.ones(len(log), dtype=bool)
    if log.events is None:
        raise ValueError(f"{path} has no column with the kind of event, so it cannot be cut to {', '.join(kinds)}")
    there = sorted(set(log.events.tolist()))
    if unknown := [kind for kind in kinds if kind not in there]:
        raise ValueError(f"{path} has no events of kind {', '.join(unknown)}; there are {', '.join(there)}")
    return np.isin(log.events.astype(str), list(kinds))


def _interactions(path: Path, log: InteractionLog, rows: np.ndarray) -> Interactions:
    return Interactions.ordered(path.name, log.users[rows], log.items[rows], log.timestamps[rows], log.item_ids)
