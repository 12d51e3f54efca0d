"""The processes' own numbers, read from their /metrics pages."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["Scrape", "scrape"]


@dataclass
class Scrape:
    """Samples of several processes: (process, sample name, labels) -> value."""

    samples: dict[tuple[str, str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that carry these labels, over all processes; 0 when there is none."""
        wanted = labels.items()
        return sum(
            value
            for (_, sample, found), value in self.samples.items()
            if sample == name and wanted <= dict(found).items()
        )

    def waiting(self) -> set[str]:
        """Processes that have not come around yet: still restoring, or without a partition."""
        name = "freshet_progress_timestamp_seconds"
        return {process for (process, sample, _), value in self.samples.items() if sample == name and value == 0}

    def labels(self, name: str, label: str) -> list[str]:
        """The values that `label` takes on the samples of this name with a value above zero."""
        return sorted(
            {dict(found)[label] for (_, sample, found), value in self.samples.items() if sample == name and value > 0}
        )

    def share_at_most(self, name: str, bound: str, **labels: str) -> tuple[float, float]:
        """Of a histogram: how many observations were at most `bound` (a bucket's edge), and how many there were."""
        return self.total(f"{name}_bucket", le=bound, **labels), self.total(f"{name}_count", **labels)


def scrape(urls: Mapping[str, str], timeout_seconds: float = 1.0) -> Scrape:
    """Read every process's page; one that does not answer is in `down`."""
    result = Scrape()
    for process, url in urls.items():
        try:
            with urllib.request.urlopen(url, timeout=timeout_seconds) as page:
                text = page.read().decode()
        except (urllib.error.URLError, OSError):
            result.down.add(process)
            continue
        for sample in _samples(text):
            result.samples[process, sample[0], frozenset(sample[1].items())] = sample[2]
    return result


def _samples(text: str) -> Iterable[tuple[str, Mapping[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value
