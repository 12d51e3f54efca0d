"""The figures of the status page, computed from scraped metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ops.local.scraping import Samples, quantile

__all__ = ["figures", "series_point"]

_HISTOGRAMS = {
    "event_to_recommendation": "freshet_event_to_recommendation_seconds",
    "event_to_history": "freshet_event_to_history_seconds",
}


def figures(now: Samples, before: Samples | None, past: Samples | None) -> dict[str, Any]:
    """All figures of the page.

    Rates are since `before`, percentiles and hit rates since `past` (None: since the processes started).
    """
    dead = now.by("freshet_dead_letters_total", "reason")
    return {
        "time": now.seconds,
        "processes": _processes(now, before),
        "rates": {
            "events": _rate(now, before, "freshet_events_consumed_total", topic="interactions"),
            "lists": _rate(now, before, "freshet_recommendations_published_total"),
        },
        "totals": {
            "events": now.total("freshet_events_consumed_total", topic="interactions"),
            "lists": now.total("freshet_recommendations_published_total"),
            "outcomes": _nonzero(now.by("freshet_events_applied_total", "result")),
            "fallbacks": _nonzero(now.by("freshet_fallback_lists_total", "reason")),
            "dead_letters": _nonzero(dead),
        },
        "latency": {name: _latency(now, past, metric) for name, metric in _HISTOGRAMS.items()},
        "lag": _lag(now),
        "models": _models(now),
        "training": _training(now),
        "drift": _drift(now),
        "feed": _feed(now),
        "quality": _quality(now, past),
        "pilot": _pilot(now),
    }


def series_point(found: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures that the page draws over time."""
    control = next((row["hit"] for row in found["quality"]["variants"] if row["variant"] == "control"), None)
    popularity = next((row["hit"] for row in found["quality"]["variants"] if row["variant"] == "popularity"), None)
    return {
        "events": found["rates"]["events"],
        "lists": found["rates"]["lists"],
        "p95": found["latency"]["event_to_recommendation"]["p95"],
        "lag": sum(row["records"] for row in found["lag"]) if found["lag"] else None,
        "hit": control,
        "popularity": popularity,
    }


def _rate(now: Samples, before: Samples | None, name: str, **labels: str) -> float | None:
    if before is None or now.seconds <= before.seconds:
        return None
    # A process that restarted counts from zero.
    return max(now.total(name, **labels) - before.total(name, **labels), 0.0) / (now.seconds - before.seconds)


def _nonzero(values: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in sorted(values.items()) if value}


def _processes(now: Samples, before: Samples | None) -> list[dict[str, Any]]:
    def of(samples: Samples | None, process: str, name: str) -> float | None:
        return next((v for p, _, v in samples.each(name) if p == process), None) if samples else None

    rows = []
    for process, up in now.up.items():
        cpu, cpu_before = (of(samples, process, "process_cpu_seconds_total") for samples in (now, before))
        share = None
        if cpu is not None and cpu_before is not None and before is not None and now.seconds > before.seconds:
            share = max(cpu - cpu_before, 0.0) / (now.seconds - before.seconds)
        progress = of(now, process, "freshet_progress_timestamp_seconds")
        rows.append(
            {
                "name": process,
                "up": up,
                "cpu": share,
                "memory": of(now, process, "process_resident_memory_bytes"),
                "idle": max(now.seconds - progress, 0.0) if progress else None,
            }
        )
    return rows


def _cumulative(samples: Samples | None, metric: str, **labels: str) -> dict[float, float]:
    if samples is None:
        return {}
    return {float(bound): n for bound, n in samples.by(f"{metric}_bucket", "le", **labels).items()}


def _since(now: Samples, past: Samples | None, metric: str, **labels: str) -> dict[float, float]:
    """Cumulative counts since `past`; all of them when a restart made some smaller."""
    new, old = _cumulative(now, metric, **labels), _cumulative(past, metric, **labels)
    difference = {bound: count - old.get(bound, 0.0) for bound, count in new.items()}
    return new if any(count < 0 for count in difference.values()) else difference


def _latency(now: Samples, past: Samples | None, metric: str) -> dict[str, float | None]:
    counts = _since(now, past, metric)
    return {f"p{q * 100:.0f}": quantile(q, counts) for q in (0.5, 0.95, 0.99)} | {
        "events": max(counts.values(), default=0.0)
    }


def _lag(now: Samples) -> list[dict[str, Any]]:
    rows = []
    for topic, total in sorted(now.by("freshet_consumer_lag_records", "topic").items()):
        rows.append(
            {"topic": topic, "records": total, "worst": now.largest("freshet_consumer_lag_records", topic=topic)}
        )
    return rows


def _models(now: Samples) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for _, labels, value in now.each("freshet_model_info"):
        if value:
            found[labels["slot"]] = {"slot": labels["slot"], "version": labels["version"], "parent": labels["parent"]}
    for slot, row in found.items():
        data = now.largest("freshet_model_data_timestamp_seconds", slot=slot)
        row["age"] = now.seconds - data if data else None
        row["items"] = now.largest("freshet_model_vocabulary_items", slot=slot) or None
    order = ("live", "candidate", "previous")
    return sorted(
        found.values(), key=lambda row: (order.index(row["slot"]) if row["slot"] in order else 9, row["slot"])
    )


def _training(now: Samples) -> dict[str, Any]:
    rounds: dict[str, dict[str, float]] = {}
    for _, labels, value in now.each("freshet_training_rounds_total"):
        if value:
            by_outcome = rounds.setdefault(labels["trigger"], {})
            by_outcome[labels["outcome"]] = by_outcome.get(labels["outcome"], 0.0) + value
    scores: dict[str, dict[str, float]] = {}
    for _, labels, value in now.each("freshet_candidate_metric"):
        scores.setdefault(labels["slot"], {})[labels["metric"]] = value
    last = now.largest("freshet_training_last_success_timestamp_seconds")
    return {
        "rounds": rounds,
        "refused": _nonzero(now.by("freshet_training_gate_failures_total", "gate")),
        "promotions": now.total("freshet_model_promotions_total"),
        "rollbacks": _nonzero(now.by("freshet_model_rollbacks_total", "reason")),
        "scores": {slot: values for slot, values in scores.items() if any(values.values())},
        "since_promotion": now.seconds - last if last else None,
    }


def _drift(now: Samples) -> list[dict[str, Any]]:
    rows = []
    for _, labels, state in now.each("freshet_drift_state"):
        at = {"signal": labels["signal"], "reference": labels["reference"]}
        events = now.largest("freshet_drift_window_events", signal=labels["signal"], window="current")
        evaluated = now.largest("freshet_drift_evaluated_timestamp_seconds", signal=labels["signal"])
        critical = now.largest("freshet_drift_critical_value", **at)
        judged = evaluated and (at["reference"] == "training" or critical)  # a weekly baseline needs a week of data
        rows.append(
            {
                **at,
                "state": int(state) if judged else None,
                "value": now.largest("freshet_drift_statistic", stat="psi", **at),
                "critical": critical,
                "excess": now.largest("freshet_drift_excess_ratio", **at),
                "events": events,
            }
        )
    return rows


def _feed(now: Samples) -> dict[str, bool]:
    """Result of each check of the feed; empty before the first window was evaluated."""
    if not now.total("freshet_drift_evaluated_timestamp_seconds"):
        return {}
    return {check: value == 0 for check, value in now.by("freshet_data_quality_state", "check").items()}


def _pilot(now: Samples) -> list[dict[str, Any]]:
    """A row for each variant of the pilot, control first."""
    rows = []
    for _, labels, users in now.each("freshet_pilot_users"):
        name, at = labels["pilot"], {"pilot": labels["pilot"], "variant": labels["variant"]}
        verdicts = [value for _, found, value in now.each("freshet_pilot_verdict") if found == at]
        bounds = {
            found["bound"]: value
            for _, found, value in now.each("freshet_pilot_difference")
            if {**at, "bound": found["bound"]} == found
        }
        rows.append(
            {
                **at,
                "share": now.largest("freshet_pilot_share_ratio", pilot=name),
                "users": users,
                "hit": now.largest("freshet_pilot_hit_ratio", **at),
                "ndcg": now.largest("freshet_pilot_ndcg", **at),
                "difference": bounds or None,
                "verdict": int(verdicts[0]) if verdicts else None,
                "split": now.largest("freshet_pilot_split_probability", pilot=name),
            }
        )
    return sorted(rows, key=lambda row: (row["pilot"], row["variant"] != "control", row["variant"]))


def _quality(now: Samples, past: Samples | None) -> dict[str, Any]:
    variants = []
    for variant in sorted(now.by("freshet_prequential_rank_count", "variant")):
        recent = _since(now, past, "freshet_prequential_rank", variant=variant)
        events = recent.get(math.inf, 0.0)
        total = now.total("freshet_prequential_rank_count", variant=variant)
        if not total:
            continue
        ndcg = now.total("freshet_prequential_ndcg_total", variant=variant)
        hits = now.total("freshet_prequential_rank_bucket", variant=variant, le="10.0")
        variants.append(
            {
                "variant": variant,
                "hit": recent.get(10.0, 0.0) / events if events else None,
                "events": events,
                "hit_total": hits / total,
                "ndcg_total": ndcg / total,
                "events_total": total,
            }
        )
    return {
        "variants": variants,
        "outcomes": _nonzero(now.by("freshet_prequential_events_total", "outcome")),
        "coverage": now.largest("freshet_catalogue_coverage_ratio", variant="control") or None,
        "cusum": now.largest("freshet_prequential_cusum_ratio", variant="control"),
        "evidence": now.largest("freshet_rollback_evidence_ratio"),
    }
