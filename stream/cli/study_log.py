"""Logs for studies: arrays, and lines that say what was read and what was left out."""

from __future__ import annotations

from pathlib import Path

from model.study.interactions import Interactions
from stream.sources.log.options import LogOptions
from stream.sources.log.reader import read_log

__all__ = ["read_study_log"]


def read_study_log(
    path: Path, options: LogOptions, low_rated: bool = False
) -> tuple[Interactions, Interactions | None, list[str]]:
    """(the log, with strength 1 for every interaction; with `low_rated` the interactions rated below the minimum, else
    None; lines for the user).

    Events of weight 0 are negative, so they are no right answers and are left out. Users and items have the same
    numbers in both logs. Raises `LogError`, and ValueError when a log is empty.
    """
    with read_log(path, options, any_age=True) as log:
        low_rated = low_rated and options.min_rating is not None
        arrays, account = log.arrays(below_minimum=low_rated), log.account
    positive = arrays.weights > 0
    found = [
        Interactions.ordered(path.name, arrays.users[rows], arrays.items[rows], arrays.times_ms[rows], arrays.item_ids)
        for rows in ([arrays.rated & positive, ~arrays.rated & positive] if low_rated else [arrays.rated & positive])
    ]
    against = int((arrays.rated & ~positive).sum())
    repeated = account.events - against - len(found[0])
    lines = [*account.lines(), *([f"  {against:,} of weight 0"] if against else [])]
    lines += [f"  {repeated:,} repeated lines are left out"] if repeated else []
    return found[0], found[1] if low_rated else None, lines
