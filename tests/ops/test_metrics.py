"""The catalogue holds: closed labels, every combination there from the start, and few series."""

import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ops.instruments import declared
from ops.labels import Check, Signal, values
from ops.metrics import (
    CATALOGUE,
    ApiMetrics,
    BatchHistogram,
    ScorerMetrics,
    SinkMetrics,
    TrainerMetrics,
    UpdaterMetrics,
)
from ops.monitor.drift_monitor import SIGNALS
from ops.server import serve

PROCESSES = (UpdaterMetrics, ScorerMetrics, TrainerMetrics, ApiMetrics, SinkMetrics)
OPEN = {"consumer_lag_records", "consumer_committed_offset", "model_info"}
OPEN |= {f"pilot_{name}" for name in ("share_ratio", "split_probability", "users", "hit_ratio", "ndcg", "difference")}
OPEN |= {"pilot_verdict"}


@pytest.mark.parametrize("process", PROCESSES)
def test_every_series_of_a_closed_metric_is_there_before_anything_happens(process: type) -> None:
    registry = CollectorRegistry()
    process(registry)
    families = {f.name: f for f in text_string_to_metric_families(generate_latest(registry).decode())}
    for metric in declared(process):
        if metric.name in OPEN:
            continue
        family = families[metric.exported.removesuffix("_total")]
        series = {tuple(sorted((k, v) for k, v in s.labels.items() if k != "le")) for s in family.samples}
        expected = 1
        for closed in metric.closed.values():
            expected *= len(closed or ())
        assert len(series) == expected, metric.name
        assert family.documentation and family.type == metric.kind
        assert not any(sample.name.endswith("_created") for sample in family.samples)


def test_only_the_info_metric_lag_and_the_pilot_have_open_labels() -> None:
    assert {metric.name for metric in CATALOGUE if None in metric.closed.values()} == OPEN
    assert {"user", "item", "version"} & {n for m in CATALOGUE if m.name != "model_info" for n in m.labels} == set()


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_has_fewer_than_500_series_at_12_partitions(process: type) -> None:
    registry = CollectorRegistry()
    metrics = process(registry)
    if process is TrainerMetrics:
        for group, topic in (("updater", "interactions"), ("scorer", "refreshes")):
            for partition in range(12):
                metrics.consumer_lag_records.labels(group, topic, str(partition)).set(0)
                metrics.consumer_committed_offset.labels(group, topic, str(partition)).set(0)
    lines = generate_latest(registry).decode().splitlines()
    assert sum(not line.startswith("#") for line in lines) < 500


def test_a_batch_is_observed_as_its_values_are() -> None:
    values = [0.0, 0.5, 1.0, 1.5, 2.0, 7.0]
    registries = [CollectorRegistry() for _ in range(2)]
    one, many = (BatchHistogram("seconds", "help", ("stage",), buckets=(1, 2, 5), registry=r) for r in registries)
    for value in values:
        one.labels("a").observe(value)
    many.labels("a").observe_many(values)
    many.labels("a").observe_many([])
    assert generate_latest(registries[0]) == generate_latest(registries[1])


def test_a_served_page_has_the_process_itself_and_closes() -> None:
    registry = CollectorRegistry()
    UpdaterMetrics(registry)
    server = serve(registry)
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as page:
        text = page.read().decode()
    assert "process_resident_memory_bytes" in text and "freshet_events_applied_total" in text
    server.close()
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=1)


def test_every_signal_has_its_label() -> None:
    assert {signal.name for signal in SIGNALS} == set(values(Signal))


def test_every_label_value_comes_from_the_closed_set() -> None:
    states = next(metric for metric in CATALOGUE if metric.name == "data_quality_state")
    assert states.closed["check"] == values(Check)


def test_a_metric_of_several_processes_has_the_labels_of_all() -> None:
    consumed = next(metric for metric in CATALOGUE if metric.name == "events_consumed_total")
    assert consumed.closed["topic"] == ("interactions", "refreshes")
