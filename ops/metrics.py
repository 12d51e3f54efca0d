"""Every metric Freshet exports, in one typed place.

`CATALOGUE` names each with its kind, its labels and all the values they may take; the classes below it hold what one
process emits, every label combination instantiated at the start (a counter that is born at 1 hides its first
increase). No user, item or model version is ever a label, except the version in `freshet_model_info`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

disable_created_metrics()  # a series per counter and histogram that nothing here reads

__all__ = [
    "CATALOGUE",
    "ApiMetrics",
    "BatchHistogram",
    "Metric",
    "MetricsServer",
    "ScorerMetrics",
    "TrainerMetrics",
    "UpdaterMetrics",
    "serve",
]

Kind = Literal["counter", "gauge", "histogram"]

DEAD_LETTER_REASONS = ("decode", "schema", "timestamp", "oversize", "handler")
SIGNALS = (
    "item_popularity",
    "unknown_item_rate",
    "new_user_rate",
    "history_length",
    "inter_arrival",
    "event_type",
    "score_top1",
    "score_margin",
)
REFERENCES = ("training", "baseline")
SLOTS = ("live", "candidate", "previous", "retired", "none")  # none: a list without a model
RANKING_SLOTS = ("live", "candidate", "previous")
VARIANTS = ("control", "treatment", "popularity", "previous_shadow")
TRIGGERS = ("schedule", "drift", "quality", "vocabulary", "manual")
OUTCOMES = ("promoted", "rejected", "failed", "skipped")
GATES = ("holdout", "popularity", "coverage", "finite", "skew", "canary", "data_quality", "cooldown")

API_ROUTES = ("recommendations", "history", "forget", "events", "health", "metrics", "other")
API_STATUSES = ("2xx", "3xx", "4xx", "503", "5xx")  # 503 alone: the right answer is not known at the moment


@dataclass(frozen=True)
class Metric:
    """One exported name without its prefix. `labels` maps each label to its closed set; None marks an open one."""

    name: str
    kind: Kind
    help: str
    processes: str  # of U updater, S scorer, T trainer, A API
    labels: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        return f"freshet_{self.name}"


def _counter(name: str, processes: str, help: str, **labels: tuple[str, ...] | None) -> Metric:
    return Metric(name, "counter", help, processes, labels)


def _gauge(name: str, processes: str, help: str, **labels: tuple[str, ...] | None) -> Metric:
    return Metric(name, "gauge", help, processes, labels)


def _histogram(
    name: str, processes: str, help: str, buckets: tuple[float, ...], **labels: tuple[str, ...] | None
) -> Metric:
    return Metric(name, "histogram", help, processes, labels, buckets)


_EVENT_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LIST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
_WRITE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)
_SCORING_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_API_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_ROUND_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600)
_SCORES = (-0.25, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.5)
_INPUTS = ("interactions", "refreshes", "histories", "models")

CATALOGUE: tuple[Metric, ...] = (
    # What arrives
    _counter("events_consumed_total", "US", "Records read.", topic=_INPUTS),
    _counter(
        "events_applied_total", "U", "Valid events by outcome.", result=("applied", "duplicate", "late", "filtered")
    ),
    _counter("dead_letters_total", "UST", "Records sent to dead-letters.", reason=DEAD_LETTER_REASONS),
    _counter("foreign_partition_total", "U", "Sampled records in another partition than murmur2 of their key."),
    _histogram("event_to_history_seconds", "U", "Arrival at the broker to durable history.", _EVENT_SECONDS),
    _gauge("stream_watermark_timestamp_seconds", "US", "Newest event time, the least over partitions.", topic=_INPUTS),
    _histogram("history_write_seconds", "U", "One partition's checkpoint in RocksDB.", _WRITE_SECONDS),
    _histogram("history_items", "U", "History length after an update.", (1, 2, 4, 8, 16, 32, 64, 128, 256)),
    _histogram(
        "inter_arrival_seconds",
        "U",
        "Time since the user's previous event.",
        (1, 10, 60, 600, 3600, 21600, 86400, 604800, 2592000),
    ),
    _counter("user_events_total", "U", "Applied events of users seen before, or not.", status=("new", "known")),
    _counter(
        "item_events_total",
        "S",
        "Applied events by whether the live model knows the item.",
        status=("in_vocabulary", "out_of_vocabulary"),
    ),
    _counter("new_items_total", "S", "Items met for the first time."),
    _gauge("state_bytes", "USTA", "Live RocksDB bytes on disk.", store=("histories", "lists", "view")),
    _gauge("state_pending_compaction_bytes", "UST", "Early sign of stalls.", store=("histories", "lists", "view")),
    _gauge("restoring_partitions", "U", "Partitions whose store is not level with the changelog yet."),
    _counter("checkpoints_total", "U", "Checkpoints by result.", result=("committed", "refused")),
    # Kafka from outside
    _gauge(
        "consumer_lag_records", "T", "End offset minus committed, at least 0.", group=None, topic=None, partition=None
    ),
    _gauge("consumer_committed_offset", "T", "Committed offset.", group=None, topic=None, partition=None),
    _gauge("consumer_lag_polled_timestamp_seconds", "T", "Last successful poll of the lag."),
    _counter("rebalances_total", "USA", "Partition reassignments."),
    _gauge("progress_timestamp_seconds", "USTA", "Last time the main loop got around."),
    # Drift
    _gauge(
        "drift_statistic",
        "T",
        "Raw value of the last closed window.",
        signal=SIGNALS,
        reference=REFERENCES,
        stat=("psi", "jsd", "ks", "linf"),
    ),
    _gauge("drift_excess_ratio", "T", "PSI minus its expectation without drift.", signal=SIGNALS, reference=REFERENCES),
    _gauge("drift_critical_value", "T", "Noise quantile for these counts.", signal=SIGNALS, reference=REFERENCES),
    _gauge("drift_window_events", "T", "Events behind the numbers.", signal=SIGNALS, window=("current", "reference")),
    _gauge("drift_state", "T", "-1 too few events, 0 ok, 1 warning, 2 drift.", signal=SIGNALS, reference=REFERENCES),
    _counter("drift_detections_total", "T", "Entries into a state.", signal=SIGNALS, level=("warning", "drift")),
    _gauge("drift_evaluated_timestamp_seconds", "T", "Last evaluation.", signal=SIGNALS),
    _gauge(
        "data_quality_state",
        "T",
        "0 pass, 1 fail; a failure freezes training.",
        check=("rate", "dead_letters", "duplicates", "user_share", "clock", "items", "signals"),
    ),
    # Scoring
    _counter("recommendations_published_total", "S", "Lists delivered.", variant=VARIANTS),
    _histogram("event_to_recommendation_seconds", "S", "Arrival at the broker to delivered list.", _LIST_SECONDS),
    _histogram("scoring_seconds", "S", "Per batch.", _SCORING_SECONDS, stage=("load", "forward", "topk", "publish")),
    _histogram("scoring_batch_users", "S", "Users per batch.", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)),
    _counter("scoring_failures_total", "S", "Failed batches.", reason=("oom", "timeout", "model", "store")),
    _counter("fallback_lists_total", "S", "Popularity served instead.", reason=("cold_user", "no_model", "error")),
    _counter("nonfinite_scores_total", "S", "NaN or infinite scores withheld.", slot=RANKING_SLOTS),
    _histogram("top_score", "S", "Best score of a list.", _SCORES, slot=RANKING_SLOTS),
    _gauge("model_info", "ST", "Always 1.", slot=None, version=None, parent=None),
    _gauge("model_data_timestamp_seconds", "S", "Newest event the model was fitted on.", slot=SLOTS),
    _gauge("model_loaded_timestamp_seconds", "S", "When the scorer took it.", slot=SLOTS),
    _gauge("model_vocabulary_items", "S", "Items it can score.", slot=SLOTS),
    # Quality
    _histogram(
        "prequential_rank",
        "S",
        "Rank of an event's item in the list published before it; a miss is one past the list.",
        (1, 3, 5, 10, 20, 50),
        variant=VARIANTS,
        slot=SLOTS,
    ),
    _counter(
        "prequential_events_total",
        "S",
        "Every event once.",
        variant=VARIANTS,
        outcome=("hit", "miss", "repeat", "negative", "out_of_vocabulary", "no_list", "stale_list"),
    ),
    _counter("prequential_ndcg_total", "S", "Sum of 1/log2(1+rank), rank at most 10.", variant=VARIANTS, slot=SLOTS),
    _counter(
        "prequential_detections_total",
        "S",
        "Changes detected.",
        variant=VARIANTS,
        detector=("adwin", "cusum"),
        direction=("up", "down"),
    ),
    _gauge("prequential_cusum_ratio", "S", "1 is an alarm.", variant=VARIANTS),
    _gauge("prequential_adwin_events", "S", "Events since the last change.", variant=VARIANTS),
    _gauge("rollback_evidence_ratio", "S", "1 is a rollback."),
    _gauge("experiment_treatment_ratio", "S", "Declared share of users who get the candidate; 0 without one."),
    _counter("experiment_users_total", "S", "Each user once.", variant=("control", "treatment")),
    _gauge("catalogue_coverage_ratio", "S", "Distinct items over vocabulary, last 10k lists.", variant=VARIANTS),
    _gauge("recommendation_gini_ratio", "S", "Over the whole vocabulary, last 10k lists.", variant=VARIANTS),
    _gauge("recommendation_popularity_ratio", "S", "Mean popularity percentile.", variant=VARIANTS),
    _gauge("recommendation_novelty", "S", "Mean -log2 of the items' share.", variant=VARIANTS),
    _gauge("intra_list_distance_ratio", "S", "Mean pairwise cosine distance.", variant=VARIANTS),
    _gauge("list_churn_ratio", "S", "1 minus Jaccard of consecutive lists.", variant=VARIANTS),
    # Training
    _counter("training_rounds_total", "T", "Rounds.", trigger=TRIGGERS, outcome=OUTCOMES),
    _counter("training_gate_failures_total", "T", "Why not promoted.", gate=GATES),
    _histogram(
        "training_round_seconds",
        "T",
        "Per stage.",
        _ROUND_SECONDS,
        stage=("snapshot", "train", "evaluate", "export"),
    ),
    _gauge("training_last_success_timestamp_seconds", "T", "Last round that promoted."),
    _gauge("training_examples", "T", "Users in the last round."),
    _gauge("training_loss_ratio", "T", "Squared error over that of zero.", phase=("first", "last", "holdout")),
    _gauge("training_timestep_loss_ratio", "T", "The same by diffusion step.", noise=("low", "mid", "high")),
    _gauge("training_gradient_norm", "T", "Mean of the last epoch, before clipping."),
    _counter("training_nonfinite_batches_total", "T", "Batches dropped."),
    _gauge(
        "candidate_metric",
        "T",
        "Holdout scores of the last gate.",
        slot=("candidate", "live", "popularity"),
        metric=("recall_at_20", "ndcg_at_20"),
    ),
    _gauge("train_serve_mismatch_ratio", "T", "Probe users whose lists differ between trainer and scorer."),
    _counter("model_promotions_total", "T", "Models taken live."),
    _counter(
        "model_rollbacks_total",
        "T",
        "Models taken back.",
        reason=("quality", "nonfinite", "latency", "coverage", "manual"),
    ),
    _gauge("gpu_memory_peak_bytes", "ST", "Peak allocation."),
    # The API
    _counter("api_requests_total", "A", "Requests answered.", route=API_ROUTES, status=API_STATUSES),
    _histogram("api_request_seconds", "A", "From the request's headers to the end of its answer.", _API_SECONDS),
    _counter("api_forwarded_total", "A", "Requests passed on to another instance.", result=("answered", "failed")),
    _counter("api_events_total", "A", "Events received.", result=("accepted", "refused", "failed", "forgotten")),
    _histogram("api_list_lag_seconds", "A", "A list's record in Kafka to its copy here.", _LIST_SECONDS),
    _gauge("api_partitions", "A", "Partitions held.", state=("serving", "restoring")),
    _gauge("api_behind_seconds", "A", "Age of the copy that was known to be complete the longest ago."),
    _counter("api_unusable_lists_total", "A", "Stored lists that are none, or of somebody else."),
)
_BY_NAME = {metric.name: metric for metric in CATALOGUE}

M = TypeVar("M", Counter, Gauge, Histogram)

_FEW = 8  # values that are quicker observed one by one


class BatchHistogram(Histogram):
    """A histogram that can take a whole batch at once, for paths where a call per event costs too much."""

    def observe_many(self, values: Sequence[float] | npt.NDArray[np.float64]) -> None:
        """The same as `observe` of each value. Values must not be NaN."""
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
    """What a batch counts and observes, one metric call each at the end of it instead of one per event."""

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


class Family(Generic[M]):
    """A metric with its closed label sets made children once: `family["hit"].inc()`, `family["live", "x"].set(1)`.

    The key is the label's value, or the tuple of values in the order of the catalogue.
    """

    def __init__(self, metric: Metric, made: M) -> None:
        self.metric = metric
        self.made: M = made
        closed = [values for values in metric.labels.values() if values is not None]
        self._children: dict[Any, M] = {}
        if len(closed) == len(metric.labels):
            for values in product(*closed):
                self._children[values[0] if len(values) == 1 else values] = made.labels(*values)

    def __getitem__(self, values: str | tuple[str, ...]) -> M:
        return self._children[values]


class _ProcessMetrics:
    """Makes the catalogue's metrics of one process in `registry`."""

    letter = ""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        made: dict[str, Any] = {m.name: _make(m, registry) for m in CATALOGUE if self.letter in m.processes}
        for name, metric in made.items():
            attribute = name.removesuffix("_total").removesuffix("_seconds")
            setattr(self, attribute, Family[Any](_BY_NAME[name], metric) if _BY_NAME[name].labels else metric)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no metric {name!r} of process {self.letter} in the catalogue")


def _make(metric: Metric, registry: CollectorRegistry) -> Any:
    labels = tuple(metric.labels)
    if metric.kind == "counter":
        return Counter(metric.exported, metric.help, labels, registry=registry)
    if metric.kind == "gauge":
        return Gauge(metric.exported, metric.help, labels, registry=registry)
    return BatchHistogram(metric.exported, metric.help, labels, buckets=metric.buckets, registry=registry)


class UpdaterMetrics(_ProcessMetrics):
    letter = "U"


class ScorerMetrics(_ProcessMetrics):
    letter = "S"


class TrainerMetrics(_ProcessMetrics):
    letter = "T"


class ApiMetrics(_ProcessMetrics):
    letter = "A"

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request; a route that is not in the catalogue is `other`."""
        shown = "503" if status == 503 else f"{status // 100}xx"
        self.api_requests[route if route in API_ROUTES else "other", shown].inc()
        self.api_request.observe(seconds)


class MetricsServer:
    """Serves a registry at `http://host:port/metrics` from threads of its own, so a busy process still answers."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        self.port: int = self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def serve(registry: CollectorRegistry, host: str = "127.0.0.1", port: int = 0) -> MetricsServer:
    """Serve this registry, with the process's own memory, CPU and file counts; port 0 takes a free one.

    Raises OSError when the port is taken.
    """
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return MetricsServer(registry, host, port)
