"""The callbacks by which a study, which may take hours, reports its progress."""

from __future__ import annotations

from collections.abc import Callable

from model.study.report import Row

__all__ = ["OnMeasured", "Progress"]

Progress = Callable[[str, float], None]  # (what is being done, its progress from 0 to 1)
OnMeasured = Callable[[Row], None]  # called with a row after each of its seeds has been measured
