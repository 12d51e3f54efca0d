"""Every metric that Freshet exports, by the process that emits it.

Users, items and model versions are never labels, except the version in `freshet_model_info`. A pilot and its variants
are labels, because there is one pilot at a time. Dashboards and alerts use the exported names and labels; an attribute
has the exported name without its unit, or a clearer name. The file is long because it is one catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, cast

from prometheus_client import Counter, Gauge

from ops.instruments import (
    BatchHistogram,
    Counters,
    Gauges,
    Histograms,
    Metric,
    ProcessMetrics,
    Tally,
    declared,
)
from ops.labels import (
    ApiRoute,
    ApiStatus,
    ApiStore,
    Arm,
    Check,
    EventOutcome,
    FallbackReason,
    Gate,
    GateFigure,
    ListVariant,
    Noise,
    Reference,
    RejectionReason,
    RerankerArm,
    RollbackReason,
    RoundOutcome,
    ServingSlot,
    Signal,
    Slot,
    Stage,
    Trigger,
    Variant,
    values,
)

__all__ = [
    "CATALOGUE",
    "ApiMetrics",
    "BatchHistogram",
    "ScorerMetrics",
    "SinkMetrics",
    "Tally",
    "TrainerMetrics",
    "UpdaterMetrics",
]

_EVENT_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LIST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
_WRITE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1)
_SCORING_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_API_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_ROUND_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600)
_GAP_SECONDS = (1, 10, 60, 600, 3600, 21600, 86400, 604800, 2592000)
_HISTORY_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_BATCH_USERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SCORES = (-0.25, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.5)
_RANKS = (1, 3, 5, 10, 20, 50)

_CONSUMED = Metric("events_consumed_total", "Records read.", ("topic",))
_DEAD_LETTERS = Metric("dead_letters_total", "Records sent to dead-letters.", ("reason",))
_WATERMARK = Metric("stream_watermark_timestamp_seconds", "Newest event time, the least over partitions.", ("topic",))
_STATE_BYTES = Metric("state_bytes", "Live RocksDB bytes on disk.", ("store",))
_PENDING_BYTES = Metric("state_pending_compaction_bytes", "Early sign of stalls.", ("store",))
_REBALANCES = Metric("rebalances_total", "Partition reassignments.")
_PROGRESS = Metric("progress_timestamp_seconds", "Last time the main loop got around.")
_MODEL_INFO = Metric("model_info", "Always 1.", ("slot", "version", "parent"))
_ITEMS_REJECTED = Metric("items_rejected_total", "Unusable records of `items`.", ("reason",))
_GPU_MEMORY = Metric("gpu_memory_peak_bytes", "Peak allocation.")


class UpdaterMetrics(ProcessMetrics):
    events_consumed: Annotated[Counters[Literal["interactions"]], _CONSUMED]
    events_applied: Annotated[
        Counters[Literal["applied", "duplicate", "late"]],
        Metric("events_applied_total", "Valid events by outcome.", ("result",)),
    ]
    dead_letters: Annotated[Counters[RejectionReason], _DEAD_LETTERS]
    foreign_partition: Annotated[
        Counter,
        Metric("foreign_partition_total", "Sampled records in another partition than murmur2 of their key."),
    ]
    event_to_history: Annotated[
        BatchHistogram,
        Metric("event_to_history_seconds", "Arrival at the broker to durable history.", buckets=_EVENT_SECONDS),
    ]
    stream_watermark_timestamp: Annotated[Gauges[Literal["interactions"]], _WATERMARK]
    history_write: Annotated[
        BatchHistogram,
        Metric("history_write_seconds", "One partition's checkpoint in RocksDB.", buckets=_WRITE_SECONDS),
    ]
    history_items: Annotated[
        BatchHistogram, Metric("history_items", "History length after an update.", buckets=_HISTORY_ITEMS)
    ]
    inter_arrival: Annotated[
        BatchHistogram,
        Metric("inter_arrival_seconds", "Time since the user's previous event.", buckets=_GAP_SECONDS),
    ]
    user_events: Annotated[
        Counters[Literal["new", "known"]],
        Metric("user_events_total", "Applied events of users seen before, or not.", ("status",)),
    ]
    state_bytes: Annotated[Gauges[Literal["histories"]], _STATE_BYTES]
    state_pending_compaction_bytes: Annotated[Gauges[Literal["histories"]], _PENDING_BYTES]
    restoring_partitions: Annotated[
        Gauge, Metric("restoring_partitions", "Partitions whose store is not level with the changelog yet.")
    ]
    checkpoints: Annotated[
        Counters[Literal["committed", "refused"]], Metric("checkpoints_total", "Checkpoints by result.", ("result",))
    ]
    rebalances: Annotated[Counter, _REBALANCES]
    progress_timestamp: Annotated[Gauge, _PROGRESS]


class ScorerMetrics(ProcessMetrics):
    events_consumed: Annotated[Counters[Literal["refreshes"]], _CONSUMED]
    dead_letters: Annotated[Counters[RejectionReason], _DEAD_LETTERS]
    stream_watermark_timestamp: Annotated[Gauges[Literal["refreshes"]], _WATERMARK]
    item_events: Annotated[
        Counters[Literal["in_vocabulary", "out_of_vocabulary"]],
        Metric("item_events_total", "Applied events by whether the live model knows the item.", ("status",)),
    ]
    new_items: Annotated[Counter, Metric("new_items_total", "Items met for the first time.")]
    items_rejected: Annotated[Counters[RejectionReason], _ITEMS_REJECTED]
    unlisted_items: Annotated[Gauge, Metric("unlisted_items", "Items that may not be listed to everybody now.")]
    renewed_lists: Annotated[
        Counter, Metric("renewed_lists_total", "Lists published again without an item that may not be listed any more.")
    ]
    state_bytes: Annotated[Gauges[Literal["lists"]], _STATE_BYTES]
    state_pending_compaction_bytes: Annotated[Gauges[Literal["lists"]], _PENDING_BYTES]
    rebalances: Annotated[Counter, _REBALANCES]
    progress_timestamp: Annotated[Gauge, _PROGRESS]

    # -- scoring -------------------------------------------------------------------------------------------------------
    recommendations_published: Annotated[
        Counters[ListVariant], Metric("recommendations_published_total", "Lists delivered.", ("variant",))
    ]
    event_to_recommendation: Annotated[
        BatchHistogram,
        Metric("event_to_recommendation_seconds", "Arrival at the broker to delivered list.", buckets=_LIST_SECONDS),
    ]
    scoring: Annotated[
        Histograms[Literal["load", "forward", "topk", "publish"]],
        Metric("scoring_seconds", "Per batch.", ("stage",), _SCORING_SECONDS),
    ]
    scoring_batch_users: Annotated[
        BatchHistogram, Metric("scoring_batch_users", "Users per batch.", buckets=_BATCH_USERS)
    ]
    scoring_failures: Annotated[
        Counters[Literal["oom", "model"]], Metric("scoring_failures_total", "Failed batches.", ("reason",))
    ]
    stale_refreshes: Annotated[
        Counter, Metric("stale_refreshes_total", "Refreshes older than the user's last list, not answered.")
    ]
    lists_published_again: Annotated[
        Counter, Metric("lists_published_again_total", "Lists that an older one had been published over.")
    ]
    fallback_lists: Annotated[
        Counters[FallbackReason], Metric("fallback_lists_total", "Popularity served instead.", ("reason",))
    ]
    nonfinite_scores: Annotated[
        Counters[ServingSlot], Metric("nonfinite_scores_total", "NaN or infinite scores withheld.", ("slot",))
    ]
    top_score: Annotated[Histograms[ServingSlot], Metric("top_score", "Best score of a list.", ("slot",), _SCORES)]
    model_info: Annotated[Gauge, _MODEL_INFO]
    model_data_timestamp: Annotated[
        Gauges[ServingSlot],
        Metric("model_data_timestamp_seconds", "Newest event the model was fitted on.", ("slot",)),
    ]
    model_loaded_timestamp: Annotated[
        Gauges[ServingSlot], Metric("model_loaded_timestamp_seconds", "When the scorer took it.", ("slot",))
    ]
    model_reranked: Annotated[Gauges[ServingSlot], Metric("model_reranked", "1 if it has a reranker.", ("slot",))]
    model_vocabulary_items: Annotated[
        Gauges[ServingSlot], Metric("model_vocabulary_items", "Items it can score.", ("slot",))
    ]
    gpu_memory_peak_bytes: Annotated[Gauge, _GPU_MEMORY]

    # -- quality: a list may outlast its model's time in a slot, so a variant has nearly all slots ---------------------
    prequential_rank: Annotated[
        Histograms[tuple[Variant, Slot]],
        Metric(
            "prequential_rank",
            "Rank of an event's item in the list published before it; a miss is one past the list.",
            ("variant", "slot"),
            _RANKS,
        ),
    ]
    prequential_events: Annotated[
        Counters[tuple[Variant, EventOutcome]],
        Metric("prequential_events_total", "Every event once.", ("variant", "outcome")),
    ]
    prequential_ndcg: Annotated[
        Counters[tuple[Variant, Slot]],
        Metric("prequential_ndcg_total", "Sum of 1/log2(1+rank), rank at most 10.", ("variant", "slot")),
    ]
    prequential_detections: Annotated[
        Counters[tuple[Variant, Literal["adwin", "cusum"], Literal["up", "down"]]],
        Metric("prequential_detections_total", "Changes detected.", ("variant", "detector", "direction")),
    ]
    prequential_cusum_ratio: Annotated[
        Gauges[Variant], Metric("prequential_cusum_ratio", "1 is an alarm.", ("variant",))
    ]
    prequential_adwin_events: Annotated[
        Gauges[Variant], Metric("prequential_adwin_events", "Events since the last change.", ("variant",))
    ]
    rollback_evidence_ratio: Annotated[Gauge, Metric("rollback_evidence_ratio", "1 is a rollback.")]
    canary_ratio: Annotated[
        Gauge,
        Metric("experiment_treatment_ratio", "Declared share of users who get the canary; 0 without one."),
    ]
    canary_users: Annotated[
        Counters[Literal["control", "treatment"]],
        Metric("experiment_users_total", "Each user once per canary.", ("variant",)),
    ]
    catalogue_coverage_ratio: Annotated[
        Gauges[Variant],
        Metric("catalogue_coverage_ratio", "Distinct items over vocabulary, last 10k lists.", ("variant",)),
    ]
    recommendation_gini_ratio: Annotated[
        Gauges[Variant],
        Metric("recommendation_gini_ratio", "Over the whole vocabulary, last 10k lists.", ("variant",)),
    ]
    recommendation_popularity_ratio: Annotated[
        Gauges[Variant], Metric("recommendation_popularity_ratio", "Mean popularity percentile.", ("variant",))
    ]
    recommendation_novelty: Annotated[
        Gauges[Variant], Metric("recommendation_novelty", "Mean -log2 of the items' share.", ("variant",))
    ]
    intra_list_distance_ratio: Annotated[
        Gauges[Variant], Metric("intra_list_distance_ratio", "Mean pairwise cosine distance.", ("variant",))
    ]
    list_churn_ratio: Annotated[
        Gauges[Variant], Metric("list_churn_ratio", "1 minus Jaccard of consecutive lists.", ("variant",))
    ]


class TrainerMetrics(ProcessMetrics):
    state_bytes: Annotated[Gauges[Literal["view"]], _STATE_BYTES]
    state_pending_compaction_bytes: Annotated[Gauges[Literal["view"]], _PENDING_BYTES]
    progress_timestamp: Annotated[Gauge, _PROGRESS]

    # -- Kafka from outside --------------------------------------------------------------------------------------------
    consumer_lag_records: Annotated[
        Gauge,
        Metric("consumer_lag_records", "End offset minus committed, at least 0.", ("group", "topic", "partition")),
    ]
    consumer_committed_offset: Annotated[
        Gauge, Metric("consumer_committed_offset", "Committed offset.", ("group", "topic", "partition"))
    ]
    consumer_lag_polled_timestamp: Annotated[
        Gauge, Metric("consumer_lag_polled_timestamp_seconds", "Last successful poll of the lag.")
    ]

    # -- drift ---------------------------------------------------------------------------------------------------------
    drift_statistic: Annotated[
        Gauges[tuple[Signal, Reference, Literal["psi", "jsd", "ks", "linf"]]],
        Metric("drift_statistic", "Raw value of the last closed window.", ("signal", "reference", "stat")),
    ]
    drift_excess_ratio: Annotated[
        Gauges[tuple[Signal, Reference]],
        Metric("drift_excess_ratio", "PSI minus its expectation without drift.", ("signal", "reference")),
    ]
    drift_critical_value: Annotated[
        Gauges[tuple[Signal, Reference]],
        Metric("drift_critical_value", "Noise quantile for these counts.", ("signal", "reference")),
    ]
    drift_window_events: Annotated[
        Gauges[tuple[Signal, Literal["current", "reference"]]],
        Metric("drift_window_events", "Events behind the numbers.", ("signal", "window")),
    ]
    drift_state: Annotated[
        Gauges[tuple[Signal, Reference]],
        Metric("drift_state", "-1 too few events, 0 ok, 1 warning, 2 drift.", ("signal", "reference")),
    ]
    drift_detections: Annotated[
        Counters[tuple[Signal, Literal["warning", "drift"]]],
        Metric("drift_detections_total", "Entries into a state.", ("signal", "level")),
    ]
    drift_evaluated_timestamp: Annotated[
        Gauges[Signal], Metric("drift_evaluated_timestamp_seconds", "Last evaluation.", ("signal",))
    ]
    data_quality_state: Annotated[
        Gauges[Check],
        Metric("data_quality_state", "0 pass, 1 fail; a failure freezes training.", ("check",)),
    ]

    monitor_records_refused: Annotated[
        Counters[Literal["unreadable", "window_length"]],
        Metric("monitor_records_refused_total", "Counts of workers that cannot be added up.", ("reason",)),
    ]

    # -- training ------------------------------------------------------------------------------------------------------
    training_rounds: Annotated[
        Counters[tuple[Trigger, RoundOutcome]], Metric("training_rounds_total", "Rounds.", ("trigger", "outcome"))
    ]
    training_gate_failures: Annotated[
        Counters[Gate], Metric("training_gate_failures_total", "Why not promoted.", ("gate",))
    ]
    training_round: Annotated[
        Histograms[Stage],
        Metric("training_round_seconds", "Per stage.", ("stage",), _ROUND_SECONDS),
    ]
    training_last_success_timestamp: Annotated[
        Gauge, Metric("training_last_success_timestamp_seconds", "Last round that promoted.")
    ]
    training_examples: Annotated[Gauge, Metric("training_examples", "Users in the last round.")]
    training_loss_ratio: Annotated[
        Gauges[Literal["first", "last", "holdout"]],
        Metric("training_loss_ratio", "Squared error over that of zero.", ("phase",)),
    ]
    training_timestep_loss_ratio: Annotated[
        Gauges[Noise],
        Metric("training_timestep_loss_ratio", "The same by diffusion step.", ("noise",)),
    ]
    training_gradient_norm: Annotated[
        Gauge, Metric("training_gradient_norm", "Mean of the last epoch, before clipping.")
    ]
    training_nonfinite_batches: Annotated[Counter, Metric("training_nonfinite_batches_total", "Batches dropped.")]
    candidate_metric: Annotated[
        Gauges[tuple[Arm, GateFigure]],
        Metric("candidate_metric", "Holdout scores of the last gate.", ("slot", "metric")),
    ]
    reranker_ndcg: Annotated[
        Gauges[RerankerArm],
        Metric("reranker_ndcg", "NDCG@20 of candidates by who orders them, when last chosen.", ("arm",)),
    ]
    train_serve_mismatch_ratio: Annotated[
        Gauge,
        Metric("train_serve_mismatch_ratio", "Probe users whose lists differ between trainer and scorer."),
    ]
    items_rejected: Annotated[Counters[RejectionReason], _ITEMS_REJECTED]
    item_lists_written: Annotated[
        Counter, Metric("item_lists_written_total", "Lists written to `item-lists`: trending, new and similar items.")
    ]
    item_lists_due: Annotated[Gauge, Metric("item_lists_due", "Lists that differ from those written and wait.")]
    # -- the pilot: one at a time, with a few variants -----------------------------------------------------------------
    pilot_share: Annotated[Gauge, Metric("pilot_share_ratio", "Share of the users in a variant.", ("pilot",))]
    pilot_split_probability: Annotated[
        Gauge,
        Metric("pilot_split_probability", "That users are split so by chance; do not read it below 0.001.", ("pilot",)),
    ]
    pilot_users: Annotated[Gauge, Metric("pilot_users", "Users counted, again in each stage.", ("pilot", "variant"))]
    pilot_hit_ratio: Annotated[Gauge, Metric("pilot_hit_ratio", "Hit rate@10.", ("pilot", "variant"))]
    pilot_ndcg: Annotated[Gauge, Metric("pilot_ndcg", "NDCG@10.", ("pilot", "variant"))]
    pilot_difference: Annotated[
        Gauge,
        Metric("pilot_difference", "Hit rate less that of control: low, mean and high.", ("pilot", "variant", "bound")),
    ]
    pilot_verdict: Annotated[
        Gauge, Metric("pilot_verdict", "1 better than control, -1 worse, 0 not decided.", ("pilot", "variant"))
    ]
    pilot_stops: Annotated[Counter, Metric("pilot_stops_total", "Variants stopped by the guardrail.")]

    model_info: Annotated[Gauge, _MODEL_INFO]
    model_promotions: Annotated[Counter, Metric("model_promotions_total", "Models promoted.")]
    model_rollbacks: Annotated[
        Counters[RollbackReason], Metric("model_rollbacks_total", "Models rolled back.", ("reason",))
    ]
    gpu_memory_peak_bytes: Annotated[Gauge, _GPU_MEMORY]


class ApiMetrics(ProcessMetrics):
    api_requests: Annotated[
        Counters[tuple[ApiRoute, ApiStatus]], Metric("api_requests_total", "Requests answered.", ("route", "status"))
    ]
    api_request: Annotated[
        BatchHistogram,
        Metric("api_request_seconds", "From the request's headers to the end of its answer.", buckets=_API_SECONDS),
    ]
    api_forwarded: Annotated[
        Counters[Literal["answered", "failed"]],
        Metric("api_forwarded_total", "Requests passed on to another instance.", ("result",)),
    ]
    api_events: Annotated[
        Counters[Literal["accepted", "refused", "failed", "forgotten"]],
        Metric("api_events_total", "Events received.", ("result",)),
    ]
    api_list_lag: Annotated[
        BatchHistogram,
        Metric("api_list_lag_seconds", "A list's record in Kafka to its copy here.", buckets=_LIST_SECONDS),
    ]
    api_partitions: Annotated[
        Gauges[Literal["serving", "restoring"]], Metric("api_partitions", "Partitions held.", ("state",))
    ]
    api_behind: Annotated[
        Gauge, Metric("api_behind_seconds", "Age of the copy that was known to be complete the longest ago.")
    ]
    api_unusable_lists: Annotated[
        Counter, Metric("api_unusable_lists_total", "Stored lists that are none, or of somebody else.")
    ]
    items_rejected: Annotated[Counters[RejectionReason], _ITEMS_REJECTED]
    state_bytes: Annotated[Gauges[ApiStore], _STATE_BYTES]
    rebalances: Annotated[Counter, _REBALANCES]
    progress_timestamp: Annotated[Gauge, _PROGRESS]

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request; a route that is not in the catalogue is `other`."""
        known = cast(ApiRoute, route) if route in values(ApiRoute) else "other"
        shown = "503" if status == 503 else f"{status // 100}xx"
        self.api_requests[known, cast(ApiStatus, shown)].inc()
        self.api_request.observe(seconds)


class SinkMetrics(ProcessMetrics):
    sink_records: Annotated[
        Counters[Literal["list", "deletion", "refused"]],
        Metric("sink_records_total", "Records of recommendations carried on, or refused.", ("result",)),
    ]
    sink_partitions: Annotated[
        Gauges[Literal["following", "lost"]],
        Metric("sink_partitions", "Partitions held; of a lost one the sink's own position is looked for.", ("state",)),
    ]
    rebalances: Annotated[Counter, _REBALANCES]
    progress_timestamp: Annotated[Gauge, _PROGRESS]


def _catalogue(processes: Sequence[type[ProcessMetrics]]) -> tuple[Metric, ...]:
    """Every metric once, with the label values of all processes that emit it."""
    found: dict[str, Metric] = {}
    for metric in (metric for process in processes for metric in declared(process)):
        before = found.setdefault(metric.name, metric)
        closed = {
            label: None if values is None else tuple(dict.fromkeys((*(before.closed[label] or ()), *values)))
            for label, values in metric.closed.items()
        }
        found[metric.name] = replace(metric, closed=closed)
    return tuple(found.values())


CATALOGUE = _catalogue((UpdaterMetrics, ScorerMetrics, TrainerMetrics, ApiMetrics, SinkMetrics))


@dataclass(frozen=True)
class MetricsConfig:
    host: str = "127.0.0.1"
    """Address on which /metrics, /healthz and /readyz listen."""
    updater_port: int = 9101
    """Port of an updater's /metrics; 0 takes a free one."""
    scorer_port: int = 9102
    """Port of a scorer's /metrics; 0 takes a free one."""
    trainer_port: int = 9103
    """Port of the trainer's /metrics; 0 takes a free one."""
    sink_port: int = 9104
    """Port of a sink's /metrics; 0 takes a free one."""

    def __post_init__(self) -> None:
        for name in ("updater_port", "scorer_port", "trainer_port", "sink_port"):
            if not 0 <= getattr(self, name) < 65536:
                raise ValueError(f"{name} must be between 0 and 65535, got {getattr(self, name)}")
