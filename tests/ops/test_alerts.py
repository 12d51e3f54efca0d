"""Rules, dashboards, runbook and catalogue speak of the same metrics; rules fire when they must, says promtool."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ops.grafana.panels import DASHBOARDS
from ops.grafana.render import expressions, render, write
from ops.metrics import CATALOGUE, ScorerMetrics, TrainerMetrics, UpdaterMetrics

OPS = Path(__file__).parents[2] / "ops"
RULES = (OPS / "alerts.yml").read_text()
NAME = re.compile(r"\bfreshet_[a-z0-9_]+")
LABEL = re.compile(r"\b(freshet_[a-z0-9_]+)\{([^}]*)\}")

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus (Debian)"
)


def check(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=OPS, input=stdin, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def samples() -> dict[str, tuple[str, ...]]:
    """Every sample name that the catalogue can produce, with its labels."""
    names: dict[str, tuple[str, ...]] = {}
    for metric in CATALOGUE:
        labels = tuple(metric.labels)
        if metric.kind == "histogram":
            names |= {f"{metric.exported}_{suffix}": labels for suffix in ("sum", "count")}
            names[f"{metric.exported}_bucket"] = (*labels, "le")
        else:
            names[metric.exported] = labels
    return names


def used() -> Iterator[tuple[str, str]]:
    """(where, expression) of everything that reads metrics."""
    for rule in re.findall(r"expr: (?:'([^']*)'|\|-\n((?: {6,}.*\n)+))", RULES):
        yield "alerts.yml", "".join(rule)
    for dashboard in DASHBOARDS:
        for expression in expressions(render(dashboard)):
            yield dashboard.uid, expression


def metrics_in(expression: str) -> set[str]:
    without_records = re.sub(r"\b(job|variant):freshet_\w+(:\w+)?", "", expression)
    return set(NAME.findall(without_records))


def test_every_metric_that_is_read_exists() -> None:
    known = samples()
    unknown = {(where, name) for where, text in used() for name in metrics_in(text) if name not in known}
    assert unknown == set()
    records = {name.rstrip(",").strip("'") for name in re.findall(r"record: (\S+)", RULES)}
    read = {name for _, text in used() for name in re.findall(r"\b(?:job|variant):freshet_\w+:\w+", text)}
    assert read <= records


def test_every_label_and_value_that_is_asked_for_exists() -> None:
    closed = {metric.exported: metric.closed for metric in CATALOGUE}
    for where, text in used():
        for name, matchers in LABEL.findall(text):
            base = name if name in closed else re.sub(r"_(bucket|count|sum)$", "", name)
            for label, operator, value in re.findall(r'(\w+)(=~|!=|=|!~)"([^"]*)"', matchers):
                if label == "le":
                    buckets = next(m.buckets for m in CATALOGUE if m.exported == base)
                    assert float(value) in buckets, (where, name, value)
                    continue
                if label in ("job", "instance"):
                    continue
                assert label in closed[base], (where, name, label)
                values = closed[base][label]
                if operator in ("=", "!=") and values is not None:
                    assert value in values, (where, name, value)


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {name for where, text in used() if where != "alerts.yml" for name in metrics_in(text)}
    # Recording rules stand for what they are made of.
    shown |= {name for where, text in used() if where == "alerts.yml" for name in metrics_in(text)}
    missing = {m.exported for m in CATALOGUE if not {m.exported, f"{m.exported}_bucket", f"{m.exported}_count"} & shown}
    assert missing == set()


def test_the_dashboards_in_the_tree_are_the_generated_ones(tmp_path: Path) -> None:
    write(DASHBOARDS, tmp_path)
    generated = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert generated == {path.name: path.read_text() for path in (OPS / "grafana" / "dashboards").iterdir()}
    for text in generated.values():
        dashboard = json.loads(text)
        places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
        assert len(places) == len(set(places)) and all(x + w <= 24 for x, _, w, _ in places)


def test_every_alert_has_its_entry_in_the_runbook_and_is_tested() -> None:
    alerts = re.findall(r"alert: (\w+)", RULES)
    anchors = re.findall(r"runbook_url: 'ops/runbook.md#([\w-]+)'", RULES)
    assert len(alerts) == len(anchors) == len(set(alerts))
    runbook = (OPS / "runbook.md").read_text()
    sections = {title.strip(): body for title, _, body in (p.partition("\n") for p in runbook.split("\n## ")[1:])}
    tests = (OPS / "alerts-test.yml").read_text() + (OPS / "alerts-day-test.yml").read_text()
    for alert, anchor in zip(alerts, anchors, strict=True):
        assert f"`{alert}`" in sections[anchor], (alert, anchor)
        covered = {"FreshetFreshnessBudgetBurnSlow", "FreshetConsumerFallingBehind"}  # by a pattern of names
        assert alert in tests or alert in covered
    assert set(sections) == set(anchors)


@promtool
@pytest.mark.parametrize("process", [UpdaterMetrics, ScorerMetrics, TrainerMetrics])
def test_promtool_finds_nothing_to_say_about_the_metrics(process: type) -> None:
    registry = CollectorRegistry()
    process(registry)
    assert check("check", "metrics", stdin=generate_latest(registry).decode()).strip() == ""


@promtool
def test_promtool_accepts_every_rule_and_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    check("check", "rules", "alerts.yml")
    lines = ["groups:", "- name: dashboards", "  rules:"]
    for number, (_, expression) in enumerate(used()):
        lines.append(f"  - {{record: 'test:expression:{number}', expr: {json.dumps(expression)}}}")
    path = tmp_path / "dashboards.yml"
    path.write_text("\n".join(lines) + "\n")
    check("check", "rules", str(path))


@promtool
@pytest.mark.parametrize("cases", ["alerts-test.yml", "alerts-day-test.yml"])
def test_alerts_fire_when_they_must_and_a_healthy_day_fires_none(cases: str) -> None:
    check("test", "rules", cases)


@promtool
def test_prometheus_would_start_with_its_configuration() -> None:
    check("check", "config", "prometheus.yml")
