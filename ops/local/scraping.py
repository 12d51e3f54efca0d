"""Samples scraped from the metrics pages of several processes, their sums, and quantiles of their histograms."""

from __future__ import annotations

import math
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Samples", "quantile", "read"]

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Samples:
    """Samples of all processes at one time, `seconds` on the caller's clock. `up`: which processes answered."""

    seconds: float
    up: Mapping[str, bool]
    values: Mapping[str, Sequence[tuple[str, Labels, float]]] = field(default_factory=dict)  # name -> process, ...

    def each(self, name: str, **labels: str) -> Iterator[tuple[str, Labels, float]]:
        for process, found, value in self.values.get(name, ()):
            if all(found.get(label) == wanted for label, wanted in labels.items()):
                yield process, found, value

    def total(self, name: str, **labels: str) -> float:
        return sum(value for _, _, value in self.each(name, **labels))

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Sums by the values of one label."""
        sums: dict[str, float] = {}
        for _, found, value in self.each(name, **labels):
            key = found.get(label, "")
            sums[key] = sums.get(key, 0.0) + value
        return sums

    def largest(self, name: str, **labels: str) -> float | None:
        return max((value for _, _, value in self.each(name, **labels)), default=None)


def read(urls: Mapping[str, str], seconds: float, timeout_seconds: float = 1.0) -> Samples:
    """Scrape every process. A process is not up if it does not answer, or not in Prometheus's format."""
    up, values = {}, dict[str, list[tuple[str, Labels, float]]]()
    for process, url in urls.items():
        try:
            with urllib.request.urlopen(url, timeout=timeout_seconds) as page:
                families = list(text_string_to_metric_families(page.read().decode()))
        except (urllib.error.URLError, OSError, ValueError):
            up[process] = False
            continue
        up[process] = True
        for family in families:
            for sample in family.samples:
                values.setdefault(sample.name, []).append((process, sample.labels, sample.value))
    return Samples(seconds, up, values)


def quantile(q: float, cumulative: Mapping[float, float]) -> float | None:
    """The q-quantile of a histogram, from cumulative counts by upper bound; None when it is empty.

    Interpolates inside the bucket as PromQL does; a quantile beyond the last finite bound is that bound.

    >>> quantile(0.5, {1.0: 10, 2.0: 20, math.inf: 20}), quantile(0.99, {1.0: 0, math.inf: 5})
    (1.0, 1.0)
    """
    bounds = sorted(cumulative)
    total = cumulative[bounds[-1]] if bounds else 0
    if total <= 0:
        return None
    lower, below = 0.0, 0.0
    for bound in bounds:
        count = cumulative[bound]
        if count >= q * total and count > below:
            if math.isinf(bound):
                return lower
            return lower + (bound - lower) * (q * total - below) / (count - below)
        lower, below = (lower if math.isinf(bound) else bound), count
    return lower
