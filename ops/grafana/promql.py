"""Expressions and value mappings that several dashboards use."""

from __future__ import annotations

__all__ = ["DRIFT_STATES", "PASS", "percentiles", "quantile", "rate"]

DRIFT_STATES = {-1: ("too few", "text"), 0: ("ok", "green"), 1: ("warning", "orange"), 2: ("drift", "red")}
PASS = {0: ("pass", "green"), 1: ("fail", "red")}


def quantile(q: float, metric: str, by: str = "") -> str:
    """The q-quantile of a histogram over 5 minutes, for each value of the label `by`."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[5m])))"


def percentiles(metric: str) -> list[tuple[str, str]]:
    """(PromQL, legend) of p50, p95 and p99."""
    return [(quantile(q, metric), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)]


def rate(metric: str, by: str) -> list[tuple[str, str]]:
    """(PromQL, legend) of a counter per second, for each value of the label `by`."""
    return [(f"sum by ({by}) (rate({metric}[5m]))", f"{{{{{by}}}}}")]
