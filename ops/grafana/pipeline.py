"""The dashboard of the pipeline: Kafka, the history store, scoring, training, processes."""

from __future__ import annotations

from ops.grafana.promql import percentiles, quantile, rate
from ops.grafana.render import Dashboard, Panel, Row

__all__ = ["PIPELINE"]

PIPELINE = Dashboard(
    "freshet-pipeline",
    "Freshet: pipeline",
    (
        Row(
            "Kafka",
            (
                Panel(
                    "Lag by partition",
                    [("max by (group, topic, partition) (freshet_consumer_lag_records)", "{{topic}}/{{partition}}")],
                ),
                Panel(
                    "Committed offsets per second",
                    [
                        (
                            "sum by (group, topic) (deriv(freshet_consumer_committed_offset[5m]))",
                            "{{group}} {{topic}}",
                        ),
                        ("time() - max(freshet_consumer_lag_polled_timestamp_seconds)", "age of the poll, s"),
                    ],
                ),
                Panel(
                    "Watermark delay",
                    [("time() - min by (topic) (freshet_stream_watermark_timestamp_seconds > 0)", "{{topic}}")],
                    unit="s",
                ),
                Panel("Records read", rate("freshet_events_consumed_total", "topic"), unit="cps"),
                Panel("Outcomes", rate("freshet_events_applied_total", "result"), unit="cps", stacked=True),
                Panel("Dead letters", rate("freshet_dead_letters_total", "reason"), unit="cps", stacked=True),
                Panel(
                    "Rebalances and foreign partitions",
                    [
                        ("sum by (job) (increase(freshet_rebalances_total[15m]))", "rebalances {{job}}"),
                        ("sum(increase(freshet_foreign_partition_total[15m]))", "foreign partition"),
                    ],
                ),
                Panel("Restoring partitions", [("sum(freshet_restoring_partitions)", "partitions")]),
                Panel(
                    "Seconds since the main loop turned",
                    [
                        (
                            "time() - max by (job, instance) (freshet_progress_timestamp_seconds > 0)",
                            "{{job}} {{instance}}",
                        )
                    ],
                    unit="s",
                ),
            ),
        ),
        Row(
            "History store",
            (
                Panel("Event to durable history", percentiles("freshet_event_to_history_seconds"), unit="s", width=6),
                Panel("Checkpoint write", percentiles("freshet_history_write_seconds"), unit="s", width=6),
                Panel(
                    "Bytes on disk",
                    [
                        ("sum by (store) (freshet_state_bytes)", "{{store}}"),
                        ("sum by (store) (freshet_state_pending_compaction_bytes)", "{{store}} to compact"),
                    ],
                    unit="bytes",
                    width=6,
                ),
                Panel("Checkpoints", rate("freshet_checkpoints_total", "result"), unit="cps", width=6),
            ),
        ),
        Row(
            "Scoring",
            (
                Panel(
                    "Stage, p95",
                    [(quantile(0.95, "freshet_scoring_seconds", "stage"), "{{stage}}")],
                    unit="s",
                    width=6,
                ),
                Panel(
                    "Users per batch",
                    [(quantile(q, "freshet_scoring_batch_users"), f"p{q * 100:.0f}") for q in (0.5, 0.95)],
                    width=6,
                ),
                Panel(
                    "Failures",
                    [
                        *rate("freshet_scoring_failures_total", "reason"),
                        ("sum by (slot) (rate(freshet_nonfinite_scores_total[5m]))", "not finite, {{slot}}"),
                        ("sum(rate(freshet_stale_refreshes_total[5m]))", "older than the last list"),
                        ("sum(rate(freshet_lists_published_again_total[5m]))", "published again"),
                    ],
                    unit="cps",
                    width=6,
                ),
                Panel("Popularity instead", rate("freshet_fallback_lists_total", "reason"), unit="cps", width=6),
            ),
        ),
        Row(
            "Items that may be listed",
            (
                Panel("Items not listed to everybody", [("max(freshet_unlisted_items)", "items")], width=6),
                Panel(
                    "Lists published again without one",
                    [("sum(rate(freshet_renewed_lists_total[5m]))", "lists")],
                    unit="cps",
                    width=6,
                ),
                Panel(
                    "Lists of items",
                    [
                        ("sum(rate(freshet_item_lists_written_total[5m]))", "written per second"),
                        ("max(freshet_item_lists_due)", "waiting"),
                    ],
                    width=6,
                ),
                Panel("Unusable records of items", rate("freshet_items_rejected_total", "reason"), unit="cps", width=6),
            ),
        ),
        Row(
            "API",
            (
                Panel("Requests by route", rate("freshet_api_requests_total", "route"), unit="cps", width=6),
                Panel("Requests by status", rate("freshet_api_requests_total", "status"), unit="cps", width=6),
                Panel("Time to answer", percentiles("freshet_api_request_seconds"), unit="s", width=6),
                Panel("Passed on to another instance", rate("freshet_api_forwarded_total", "result"), width=6),
                Panel("Events received", rate("freshet_api_events_total", "result"), unit="cps", width=6),
                Panel(
                    "How far the lists are behind",
                    [
                        *percentiles("freshet_api_list_lag_seconds"),
                        ("max(freshet_api_behind_seconds)", "oldest copy"),
                    ],
                    unit="s",
                    width=6,
                ),
                Panel("Partitions held", [("sum by (state) (freshet_api_partitions)", "{{state}}")], width=6),
                Panel(
                    "Stored lists that are none",
                    [("sum(increase(freshet_api_unusable_lists_total[15m]))", "lists")],
                    width=6,
                ),
            ),
        ),
        Row(
            "Sinks",
            (
                Panel("Lists carried on", rate("freshet_sink_records_total", "result"), unit="cps", width=12),
                Panel("Partitions held by sinks", [("sum by (state) (freshet_sink_partitions)", "{{state}}")]),
            ),
        ),
        Row(
            "Training",
            (
                Panel(
                    "Rounds",
                    [
                        (
                            "sum by (trigger, outcome) (increase(freshet_training_rounds_total[1h]))",
                            "{{trigger}} {{outcome}}",
                        )
                    ],
                    stacked=True,
                ),
                Panel(
                    "Stage, median",
                    [
                        (quantile(0.5, "freshet_training_round_seconds", "stage"), "{{stage}}"),
                        ("time() - max(freshet_training_last_success_timestamp_seconds > 0)", "since a promotion"),
                    ],
                    unit="s",
                ),
                Panel("Users learnt", [("max(freshet_training_examples)", "users")]),
                Panel(
                    "Loss over that of predicting nothing",
                    [
                        ("max by (phase) (freshet_training_loss_ratio)", "{{phase}}"),
                        ("max by (noise) (freshet_training_timestep_loss_ratio)", "{{noise}} noise"),
                    ],
                    lines=(1,),
                ),
                Panel(
                    "Gradient norm and dropped batches",
                    [
                        ("max(freshet_training_gradient_norm)", "norm"),
                        ("sum(increase(freshet_training_nonfinite_batches_total[1h]))", "not finite"),
                    ],
                ),
                Panel(
                    "Why not promoted",
                    [("sum by (gate) (increase(freshet_training_gate_failures_total[1d]))", "{{gate}}")],
                    stacked=True,
                ),
                Panel(
                    "Held-out scores",
                    [("max by (slot, metric) (freshet_candidate_metric)", "{{slot}} {{metric}}")],
                ),
                Panel(
                    "Who orders candidates best",
                    [("max by (arm) (freshet_reranker_ndcg)", "{{arm}}")],
                ),
                Panel(
                    "Trainer against scorer",
                    [("max(freshet_train_serve_mismatch_ratio)", "lists that differ")],
                    unit="percentunit",
                    lines=(0.01,),
                ),
                Panel("GPU memory peak", [("max by (job) (freshet_gpu_memory_peak_bytes)", "{{job}}")], unit="bytes"),
            ),
        ),
        Row(
            "Process",
            (
                Panel(
                    "Resident memory",
                    [("process_resident_memory_bytes", "{{job}} {{instance}}")],
                    unit="bytes",
                    width=6,
                ),
                Panel("CPU", [("rate(process_cpu_seconds_total[5m])", "{{job}} {{instance}}")], unit="cores", width=6),
                Panel("Open files", [("process_open_fds", "{{job}} {{instance}}")], width=6),
                Panel(
                    "Series",
                    [("scrape_samples_post_metric_relabeling", "{{job}} {{instance}}")],
                    lines=(500, 3000),
                    width=6,
                ),
                Panel(
                    "Model swaps seen by scorers",
                    [("changes(freshet_model_loaded_timestamp_seconds[15m])", "{{slot}} {{instance}}")],
                    width=6,
                ),
            ),
        ),
    ),
)
