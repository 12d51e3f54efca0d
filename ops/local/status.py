"""The status page: one self-contained HTML page, and the figures behind it, scraped here rather than by the browser.

Serves on one address of this machine:
    /             the page
    /status.json  the newest figures and a short past
    /user.json    ?user=...: what the given lookup knows of a user
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ops.local.scraping import Samples, quantile, read

__all__ = ["Lookup", "StatusPage", "figures"]

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("status.html")

# A user's last list as JSON-ready values, or None for an unknown user:
# {"items": [{"item": ..., "score": ..., "why": ...}, ...], "model": ..., ...}; other keys are shown as they are.
Lookup = Callable[[str], Mapping[str, Any] | None]

# Nothing from elsewhere, ever: the page works on a machine without a network.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"

_HISTOGRAMS = {
    "event_to_recommendation": "freshet_event_to_recommendation_seconds",
    "event_to_history": "freshet_event_to_history_seconds",
}


def figures(now: Samples, before: Samples | None, past: Samples | None) -> dict[str, Any]:
    """What the page shows. Rates are since `before`, percentiles and hit rates since `past` (None: since the start)."""
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
    }


def _rate(now: Samples, before: Samples | None, name: str, **labels: str) -> float | None:
    if before is None or now.seconds <= before.seconds:
        return None
    # A process that began anew counts from zero.
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
        judged = evaluated and (at["reference"] == "training" or critical)  # a baseline takes a week to be known
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
    """Which checks pass; none before the first window was judged."""
    if not now.total("freshet_drift_evaluated_timestamp_seconds"):
        return {}
    return {check: value == 0 for check, value in now.by("freshet_data_quality_state", "check").items()}


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


class StatusPage:
    """Scrapes `urls` (process -> /metrics address) every so often and serves the page until `close`."""

    _RATE_SECONDS = 10.0  # what rates are taken over
    _PAST_SECONDS = 120.0  # what percentiles and hit rates are taken over

    def __init__(
        self,
        urls: Mapping[str, str],
        lookup: Lookup | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        every_seconds: float = 2.0,
        points: int = 120,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if every_seconds <= 0:
            raise ValueError(f"every_seconds must be positive, got {every_seconds}")
        self._urls, self.lookup, self._clock, self._every = urls, lookup, clock, every_seconds
        self._samples: deque[Samples] = deque(maxlen=max(int(self._PAST_SECONDS / every_seconds) + 1, 2))
        self._series: deque[dict[str, float | None]] = deque(maxlen=points)
        self._answer = b"{}"
        self._stop = threading.Event()
        page = self

        class Handler(_Handler):
            status = page

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_port
        self.url = f"http://{host}:{self.port}/"
        self.hosts = {f"{name}:{self.port}" for name in (host, "localhost", "127.0.0.1")}
        self.scrape()
        self._threads = [
            threading.Thread(target=self._server.serve_forever, name="status page", daemon=True),
            threading.Thread(target=self._scrape_forever, name="status scrape", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def scrape(self) -> None:
        """Take new samples now."""
        now = read(self._urls, self._clock())
        recent = [old for old in self._samples if now.seconds - old.seconds <= self._RATE_SECONDS]
        before = recent[0] if recent else (self._samples[-1] if self._samples else None)
        past = self._samples[0] if self._samples else None
        found = figures(now, before, past)
        self._samples.append(now)
        self._series.append(_point(found))
        self._answer = json.dumps({**found, "series": list(self._series), "lookup": self.lookup is not None}).encode()

    @property
    def answer(self) -> bytes:
        return self._answer

    def _scrape_forever(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.scrape()
            except Exception:  # the page then shows how old its figures are
                log.exception("the status page could not read its figures")

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(5)


def _point(found: Mapping[str, Any]) -> dict[str, float | None]:
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


class _Handler(BaseHTTPRequestHandler):
    status: StatusPage
    server_version, sys_version = "freshet", ""

    def do_GET(self) -> None:
        # A page elsewhere whose name was made to point here must not read this one.
        if self.headers.get("Host") not in self.status.hosts:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"ask by the address this page was started with\n")
            return
        url = urlsplit(self.path)
        if url.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.read_bytes())
        elif url.path == "/status.json":
            self._send(HTTPStatus.OK, "application/json", self.status.answer)
        elif url.path == "/user.json":
            self._user(parse_qs(url.query).get("user", [""])[0])
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"nothing here\n")

    def _user(self, user: str) -> None:
        lookup = self.status.lookup
        if lookup is None or not user:
            self._send(HTTPStatus.NOT_FOUND, "application/json", b'{"error": "no user to look up"}')
            return
        try:
            found = lookup(user)
        except Exception as error:
            log.exception("the last list of a user could not be looked up")
            answer = {"error": f"the lookup failed: {type(error).__name__}"}
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "application/json", json.dumps(answer).encode())
            return
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, "application/json", b'{"error": "no list for this user"}')
        else:
            self._send(HTTPStatus.OK, "application/json", json.dumps(found).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", _POLICY)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)
