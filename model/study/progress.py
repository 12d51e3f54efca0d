"""How a study that takes hours tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable

from model.study.report import Row

__all__ = ["OnMeasured", "Progress"]

Progress = Callable[[str, float], None]  # (what is being done, how far from 0 to 1)
OnMeasured = Callable[[Row], None]  # a row, each time one more of its seeds has been measured
