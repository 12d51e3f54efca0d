"""Logs as studies take them: arrays, and lines that say what was read and what was left out."""

from __future__ import annotations

from pathlib import Path

from model.study.interactions import Interactions
from stream.sources.log.options import LogOptions
from stream.sources.log.reader import read_log

__all__ = ["read_study_log"]


def read_study_log(
    path: Path, options: LogOptions, low_rated: bool = False
) -> tuple[Interactions, Interactions | None, list[str]]:
    """(the log, each interaction of strength 1; what is rated below the minimum, on request; lines for people).

    Users and items are numbered alike in both. Raises `LogError`, and ValueError when there is no low rating.
    """
    with read_log(path, options, any_age=True) as log:
        low_rated = low_rated and options.min_rating is not None
        arrays, account = log.arrays(below_minimum=low_rated), log.account
    found = [
        Interactions.ordered(path.name, arrays.users[rows], arrays.items[rows], arrays.times_ms[rows], arrays.item_ids)
        for rows in ([arrays.rated, ~arrays.rated] if low_rated else [arrays.rated])
    ]
    repeated = account.events - len(found[0])
    lines = [*account.lines(), *([f"  {repeated:,} repeated lines are left out"] if repeated else [])]
    return found[0], found[1] if low_rated else None, lines
