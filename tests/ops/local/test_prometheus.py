"""A real Prometheus scrapes all three processes' pages and evaluates our rules on them."""

import os
import socket
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from ops.instruments import declared
from ops.local.prometheus import LocalPrometheus, PrometheusError, find_prometheus
from ops.metrics import ScorerMetrics, TrainerMetrics, UpdaterMetrics
from ops.server import serve

PROGRAM = find_prometheus(os.environ)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="prometheus is missing: apt-get install prometheus (Debian)")
OPEN = {"consumer_lag_records", "consumer_committed_offset", "model_info"}


PROCESSES = {"updater": UpdaterMetrics, "scorer": ScorerMetrics, "trainer": TrainerMetrics}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_every_metric_of_the_catalogue_arrives_and_the_rules_are_evaluated(tmp_path: Path) -> None:
    assert PROGRAM
    servers = {}
    for name, process in PROCESSES.items():
        registry = CollectorRegistry()
        metrics = process(registry)
        if name == "updater":
            assert isinstance(metrics, UpdaterMetrics)
            metrics.events_applied["applied"].inc(7)
        servers[f"freshet-{name}"] = serve(registry)
    jobs = {job: [f"127.0.0.1:{server.port}"] for job, server in servers.items()}
    try:
        with LocalPrometheus(PROGRAM, jobs, tmp_path, free_port(), scrape_seconds=0.5) as prometheus:
            deadline = time.monotonic() + 30
            while len(prometheus.query("up == 1")) < 3 or not prometheus.query("scrape_samples_scraped > 0"):
                assert time.monotonic() < deadline, prometheus.query("up")
                time.sleep(0.2)
            names = {one["metric"]["__name__"] for one in prometheus.query('{job=~"freshet-.*"}')}
            expected = {
                metric.exported + ("_bucket" if metric.kind == "histogram" else "")
                for process in PROCESSES.values()
                for metric in declared(process)
                if metric.name not in OPEN and "pilot" not in metric.labels
            }
            assert expected <= names
            counted = prometheus.query('freshet_events_applied_total{result="applied"}')
            assert counted[0]["value"][1] == "7"
            series = prometheus.query("scrape_samples_post_metric_relabeling")
            assert all(float(one["value"][1]) < 500 for one in series)
            while not prometheus.query('ALERTS{alertname="FreshetDriftMonitorStale"}'):
                assert time.monotonic() < deadline
                time.sleep(0.2)
    finally:
        for server in servers.values():
            server.close()


def test_a_prometheus_that_cannot_start_says_why(tmp_path: Path) -> None:
    assert PROGRAM
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(PrometheusError, match="address already in use"),
            LocalPrometheus(PROGRAM, {}, tmp_path, taken.getsockname()[1]),
        ):
            pass
