"""Typed metrics: a process declares each metric as an annotated attribute, which has every combination of its labels.

    class UpdaterMetrics(ProcessMetrics):
        checkpoints: Annotated[
            Counters[Literal["committed", "refused"]], Metric("checkpoints_total", "Checkpoints.", ("result",))
        ]

    metrics = UpdaterMetrics(registry)
    metrics.checkpoints["committed"].inc()

The annotation is the only place that names the values of a label. All combinations exist from the start, because
Prometheus cannot see the first increase of a counter that begins at 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # an extra series per counter and histogram, which is not used here

__all__ = [
    "BatchHistogram",
    "Counters",
    "Family",
    "Gauges",
    "Histograms",
    "InfoGauge",
    "Metric",
    "ProcessMetrics",
    "Tally",
    "declared",
]

_FEW = 8  # fewer values than this are observed one by one, which is then faster


@dataclass(frozen=True)
class Metric:
    """An exported metric: its name without the prefix, and its help. `closed` is set from the annotation: the values
    of each label, None for a label with an open set of values."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    kind: Literal["counter", "gauge", "histogram"] = "counter"
    closed: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)

    @property
    def exported(self) -> str:
        return f"freshet_{self.name}"


class BatchHistogram(Histogram):
    """A histogram that can take a whole batch at once, for paths where a call per event costs too much."""

    def observe_many(self, values: Sequence[float] | npt.NDArray[np.float64]) -> None:
        """Observe each of these values, which must not be NaN."""
        if len(values) < _FEW:
            for value in values:
                self.observe(float(value))
            return
        amounts = np.asarray(values, dtype=np.float64)
        places = np.searchsorted(np.asarray(self._upper_bounds), amounts, side="left")  # bounds are inclusive
        for place, count in enumerate(np.bincount(places).tolist()):
            if count:
                self._buckets[place].inc(count)
        self._sum.inc(float(amounts.sum()))


class Tally:
    """Collects what a batch counts and observes, for one call per metric at its end instead of one per event."""

    def __init__(self) -> None:
        self._counts: dict[Counter, float] = {}
        self._values: dict[BatchHistogram, list[float]] = {}

    def inc(self, counter: Counter, amount: float = 1.0) -> None:
        self._counts[counter] = self._counts.get(counter, 0.0) + amount

    def observe(self, histogram: BatchHistogram, value: float) -> None:
        values = self._values.get(histogram)
        if values is None:
            values = self._values[histogram] = []
        values.append(value)

    def flush(self) -> None:
        for counter, amount in self._counts.items():
            counter.inc(amount)
        for histogram, values in self._values.items():
            histogram.observe_many(values)
        self._counts.clear()
        self._values.clear()


M = TypeVar("M", Counter, Gauge, BatchHistogram)
K = TypeVar("K")  # a label's Literal, or a tuple of one Literal per label in the order of `Metric.labels`


class Family(Generic[M, K]):
    """A metric with a child for each combination of its labels: `family["hit"].inc()`, `family["live", "x"].set(1)`."""

    def __init__(self, made: M, labels: Sequence[tuple[str, ...]]) -> None:
        self.made: M = made
        self._children: dict[Any, M] = {
            values[0] if len(values) == 1 else values: made.labels(*values) for values in product(*labels)
        }

    def __getitem__(self, values: K) -> M:
        return self._children[values]


class InfoGauge:
    """A gauge that is 1 for the current combinations of labels with open values."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._shown: set[tuple[str, ...]] = set()

    def show(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Show these combinations, and remove all others."""
        shown = set(rows)
        for labels in self._shown - shown:
            self._gauge.remove(*labels)
        for labels in shown - self._shown:
            self._gauge.labels(*labels).set(1)
        self._shown = shown


Counters = Family[Counter, K]
Gauges = Family[Gauge, K]
Histograms = Family[BatchHistogram, K]

_KINDS: Mapping[type, Literal["counter", "gauge", "histogram"]] = {
    Counter: "counter",
    Gauge: "gauge",
    BatchHistogram: "histogram",
}


class ProcessMetrics:
    """Creates the metrics that its subclass declares, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        for attribute, metric, labelled in _declarations(type(self)):
            names = metric.labels
            made: Counter | Gauge | BatchHistogram
            if metric.kind == "counter":
                made = Counter(metric.exported, metric.help, names, registry=registry)
            elif metric.kind == "gauge":
                made = Gauge(metric.exported, metric.help, names, registry=registry)
            else:
                made = BatchHistogram(metric.exported, metric.help, names, buckets=metric.buckets, registry=registry)
            closed = [values for values in metric.closed.values() if values is not None]
            setattr(self, attribute, Family(made, closed) if labelled else made)


def declared(process: type[ProcessMetrics]) -> tuple[Metric, ...]:
    """The metrics of a process in the order of their declaration, with the kind and the labels of each."""
    return tuple(metric for _, metric, _ in _declarations(process))


def _declarations(process: type[ProcessMetrics]) -> Iterator[tuple[str, Metric, bool]]:
    """(attribute, metric, whether it is a family). A metric with labels that is no family has open label values."""
    for attribute, hint in get_type_hints(process, include_extras=True).items():
        if get_origin(hint) is not Annotated:
            continue
        declared, metric = get_args(hint)
        if get_origin(declared) is Family:
            made, key = get_args(declared)
            sets = [get_args(one) for one in (get_args(key) if get_origin(key) is tuple else (key,))]
            closed: dict[str, tuple[str, ...] | None] = dict(zip(metric.labels, sets, strict=True))
        else:
            made, closed = declared, dict.fromkeys(metric.labels)
        yield attribute, replace(metric, kind=_KINDS[made], closed=closed), get_origin(declared) is Family
