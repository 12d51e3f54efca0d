"""The three dashboards: overview, drift, pipeline."""

from __future__ import annotations

from ops.grafana.drift import DRIFT
from ops.grafana.overview import OVERVIEW
from ops.grafana.pipeline import PIPELINE

__all__ = ["DASHBOARDS"]

DASHBOARDS = (OVERVIEW, DRIFT, PIPELINE)
