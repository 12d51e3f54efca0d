"""Dashboards as small objects, and their JSON for Grafana: `python -m ops.grafana` writes it to `dashboards/`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Dashboard", "Panel", "Row", "expressions", "render", "write"]

FOLDER = Path(__file__).parent / "dashboards"
_DATASOURCE = {"type": "prometheus", "uid": "$datasource"}
_WIDTH = 24


@dataclass(frozen=True)
class Panel:
    """`queries` are (PromQL, legend) pairs; `lines` are thresholds drawn across a time series."""

    title: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"
    unit: str = "short"
    help: str = ""
    lines: Sequence[float] = ()
    stacked: bool = False
    width: int = 8
    states: Mapping[int, tuple[str, str]] | None = None  # value -> (text, colour)


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]
    repeat: str = ""


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    rows: Sequence[Row]
    variables: Mapping[str, str] | None = None  # name -> metric whose label of that name has the values


_ANNOTATIONS = (
    ("Promotion", 'changes(freshet_model_loaded_timestamp_seconds{slot="live"}[2m]) > 0', "green"),
    ("Rollback", "sum by (reason) (increase(freshet_model_rollbacks_total[2m])) > 0", "red"),
    ("Drift", 'sum by (signal) (increase(freshet_drift_detections_total{level="drift"}[2m])) > 0', "orange"),
)


def render(dashboard: Dashboard) -> dict[str, Any]:
    """Grafana's JSON model of a dashboard."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in dashboard.rows:
        header: dict[str, Any] = {
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
            "panels": [],
        }
        if row.repeat:
            header["repeat"] = row.repeat
        panels.append(header)
        x, y = 0, y + 1
        height = 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y = 0, y + height
                height = 0
            h = 4 if panel.kind == "stat" else 8
            panels.append(_panel(panel, {"x": x, "y": y, "w": panel.width, "h": h}))
            x, height = x + panel.width, max(height, h)
        y += height
    for number, one in enumerate(panels, start=1):
        one["id"] = number
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["freshet"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables(dashboard)},
        "annotations": {
            "list": [
                {
                    "name": name,
                    "datasource": _DATASOURCE,
                    "enable": True,
                    "expr": expr,
                    "iconColor": colour,
                    "step": "60s",
                    "titleFormat": name,
                }
                for name, expr, colour in _ANNOTATIONS
            ]
        },
        "links": [{"type": "dashboards", "tags": ["freshet"], "title": "Freshet", "asDropdown": False}],
        "panels": panels,
    }


def _variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    variables: list[dict[str, Any]] = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    ]
    for name, metric in (dashboard.variables or {}).items():
        variables.append(
            {
                "name": name,
                "type": "query",
                "datasource": _DATASOURCE,
                "query": f"label_values({metric}, {name})",
                "refresh": 2,
                "multi": True,
                "includeAll": True,
                "current": {"text": "All", "value": "$__all"},
                "sort": 1,
            }
        )
    return variables


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    colours = ("orange", "red") if len(panel.lines) > 1 else ("red",)
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": colour, "value": line} for line, colour in zip(panel.lines, colours, strict=False)]
    custom: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"fillOpacity": 10, "showPoints": "never", "spanNulls": True}
        if panel.lines:
            custom["thresholdsStyle"] = {"mode": "dashed"}
        if panel.stacked:
            custom |= {"stacking": {"mode": "normal"}, "fillOpacity": 40}
    mappings = []
    if panel.states:
        options = {
            str(value): {"text": text, "color": colour, "index": place}
            for place, (value, (text, colour)) in enumerate(panel.states.items())
        }
        mappings = [{"type": "value", "options": options}]
    defaults = {
        "unit": panel.unit,
        "custom": custom,
        "mappings": mappings,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    result: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _DATASOURCE,
                "expr": expr,
                "legendFormat": legend or "__auto",
                "instant": panel.kind in ("stat", "table"),
                "format": {"table": "table", "heatmap": "heatmap"}.get(panel.kind, "time_series"),
            }
            for number, (expr, legend) in enumerate(panel.queries)
        ],
    }
    if panel.kind == "stat":
        result["options"] = {
            "colorMode": "background" if panel.states else "value",
            "reduceOptions": {"calcs": ["last"]},
        }
    return result


def expressions(dashboard: Mapping[str, Any]) -> Iterator[str]:
    """Every PromQL expression of a rendered dashboard, with its variables replaced by example values."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$signal", "item_popularity").replace("$variant", ".*")
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["expr"]


def write(dashboards: Sequence[Dashboard], folder: Path = FOLDER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for dashboard in dashboards:
        text = json.dumps(render(dashboard), indent=1, ensure_ascii=False) + "\n"
        (folder / f"{dashboard.uid}.json").write_text(text)
