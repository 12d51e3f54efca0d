"""Reads the metrics of the processes from their /metrics pages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ops.local.scraping import Samples, read

__all__ = ["Scrape", "scrape"]


@dataclass(frozen=True)
class Scrape(Samples):
    """Samples, with the figures that the report of a run needs."""

    @property
    def down(self) -> set[str]:
        """Processes that did not answer."""
        return {process for process, answered in self.up.items() if not answered}

    def waiting(self) -> set[str]:
        """Processes that have not worked yet: they are still restoring, or have no partition."""
        return {process for process, _, value in self.each("freshet_progress_timestamp_seconds") if value == 0}

    def labels(self, name: str, label: str) -> list[str]:
        """The values of `label` among the samples of this name with a value above zero."""
        return sorted({found[label] for _, found, value in self.each(name) if value > 0})

    def share_at_most(self, name: str, bound: str, **labels: str) -> tuple[float, float]:
        """Of a histogram: the number of observations of at most `bound` (a bucket's edge), and of all observations."""
        return self.total(f"{name}_bucket", le=bound, **labels), self.total(f"{name}_count", **labels)


def scrape(urls: Mapping[str, str], timeout_seconds: float = 1.0) -> Scrape:
    """Read the page of every process."""
    found = read(urls, time.monotonic(), timeout_seconds)
    return Scrape(found.seconds, found.up, found.values)
