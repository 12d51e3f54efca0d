"""What the three dashboards show: overview, drift, pipeline."""

from __future__ import annotations

from ops.grafana.render import Dashboard, Panel, Row

__all__ = ["DASHBOARDS"]

_DRIFT_STATES = {-1: ("too few", "text"), 0: ("ok", "green"), 1: ("warning", "orange"), 2: ("drift", "red")}
_PASS = {0: ("pass", "green"), 1: ("fail", "red")}


def _quantile(q: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket[5m])))"


def _percentiles(metric: str) -> list[tuple[str, str]]:
    return [(_quantile(q, metric), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)]


def _rate(metric: str, by: str) -> list[tuple[str, str]]:
    return [(f"sum by ({by}) (rate({metric}[5m]))", f"{{{{{by}}}}}")]


def _hits(k: int) -> str:
    bucket = f'freshet_prequential_rank_bucket{{le="{k}.0",variant=~"$variant"}}'
    count = 'freshet_prequential_rank_count{variant=~"$variant"}'
    return f"sum by (variant) (increase({bucket}[1h])) / sum by (variant) (increase({count}[1h]))"


_UPLIFT = (
    'variant:freshet_hit_at_10:ratio_rate1h{variant="control"}'
    ' / on() variant:freshet_hit_at_10:ratio_rate1h{variant="popularity"} - 1'
)
_AGE = 'time() - max(freshet_model_data_timestamp_seconds{slot="live"})'
# Outcomes per arm to see a relative change of 10 % at this hit rate: one look, 1 % false alarms, 80 % power.
_NEEDED = (
    '2006 * (1 - variant:freshet_hit_at_10:ratio_rate1d{variant="control"})'
    ' / variant:freshet_hit_at_10:ratio_rate1d{variant="control"}'
)

OVERVIEW = Dashboard(
    "freshet-overview",
    "Freshet: overview",
    (
        Row(
            "Is it healthy?",
            (
                Panel(
                    "Fresh within 5 s", [("1 - job:freshet_fresh_bad:ratio_rate5m", "")], "stat", "percentunit", width=4
                ),
                Panel("Model age", [(_AGE, "")], "stat", "s", width=4),
                Panel(
                    "Hit rate at 10",
                    [('variant:freshet_hit_at_10:ratio_rate1h{variant="control"}', "")],
                    "stat",
                    "percentunit",
                    width=4,
                ),
                Panel("Uplift over popularity", [(_UPLIFT, "")], "stat", "percentunit", width=4),
                Panel("Worst lag", [("max(freshet_consumer_lag_records)", "")], "stat", width=4),
                Panel("Alerts firing", [('count(ALERTS{alertstate="firing"}) or vector(0)', "")], "stat", width=4),
                Panel(
                    "Drift against training",
                    [('max by (signal) (freshet_drift_state{reference="training"})', "{{signal}}")],
                    "stat",
                    states=_DRIFT_STATES,
                    width=14,
                ),
                Panel(
                    "Feed",
                    [("max by (check) (freshet_data_quality_state)", "{{check}}")],
                    "stat",
                    states=_PASS,
                    width=10,
                ),
            ),
        ),
        Row(
            "Freshness",
            (
                Panel("Event to recommendation", _percentiles("freshet_event_to_recommendation_seconds"), unit="s"),
                Panel(
                    "Budget burn",
                    [
                        ("job:freshet_fresh_bad:ratio_rate1h / 0.01", "1 h"),
                        ("job:freshet_fresh_bad:ratio_rate6h / 0.01", "6 h"),
                    ],
                    lines=(6, 14.4),
                    help="1 uses up the budget exactly. Pages at 14.4 over an hour, warns at 6 over six.",
                ),
                Panel(
                    "Events in, lists out",
                    [
                        ('sum(rate(freshet_events_consumed_total{topic="interactions"}[5m]))', "events"),
                        ("sum(rate(freshet_recommendations_published_total[5m]))", "lists"),
                    ],
                    unit="cps",
                ),
            ),
        ),
        Row(
            "Quality",
            (
                Panel(
                    "Hit rate by list length",
                    [(_hits(k), f"{{{{variant}}}} @{k}") for k in (1, 5, 10, 20)],
                    unit="percentunit",
                ),
                Panel(
                    "NDCG at 10",
                    [
                        (
                            "sum by (variant) (increase(freshet_prequential_ndcg_total[1h]))"
                            " / sum by (variant) (increase(freshet_prequential_rank_count[1h]))",
                            "{{variant}}",
                        )
                    ],
                ),
                Panel("Uplift over popularity", [(_UPLIFT, "control")], unit="percentunit", lines=(0,)),
                Panel(
                    "What events say",
                    [
                        (
                            'sum by (outcome) (rate(freshet_prequential_events_total{variant=~"$variant"}[5m]))',
                            "{{outcome}}",
                        )
                    ],
                    unit="cps",
                    stacked=True,
                ),
                Panel(
                    "Events to see a change of 10 %",
                    [
                        (_NEEDED, "needed per day"),
                        ("sum by (variant) (increase(freshet_prequential_rank_count[1d]))", "{{variant}}"),
                    ],
                    help="Below the needed number, what looks like a change of 10 % is as likely chance.",
                ),
                Panel(
                    "Detectors",
                    [
                        ("max by (variant) (freshet_prequential_cusum_ratio)", "CUSUM {{variant}}"),
                        ("max(freshet_rollback_evidence_ratio)", "rollback evidence"),
                    ],
                    lines=(1,),
                ),
                Panel("ADWIN width", [("max by (variant) (freshet_prequential_adwin_events)", "{{variant}}")]),
                Panel(
                    "Detections",
                    [
                        (
                            "sum by (detector, direction) (increase(freshet_prequential_detections_total[1h]))",
                            "{{detector}} {{direction}}",
                        )
                    ],
                ),
                Panel(
                    "Users in the experiment",
                    [
                        ("sum by (variant) (freshet_experiment_users_total)", "{{variant}}"),
                        ("max(freshet_experiment_treatment_ratio)", "declared share"),
                    ],
                ),
            ),
        ),
        Row(
            "Versions",
            (
                Panel(
                    "Models",
                    [("max by (slot, version, parent) (freshet_model_info)", "")],
                    "table",
                    width=12,
                ),
                Panel(
                    "Known items and data age by slot",
                    [
                        ("max by (slot) (freshet_model_vocabulary_items)", "{{slot}} items"),
                        ("time() - max by (slot) (freshet_model_data_timestamp_seconds > 0)", "{{slot}} age, s"),
                    ],
                    width=6,
                ),
                Panel(
                    "Promotions and rollbacks",
                    [
                        ("sum(increase(freshet_model_promotions_total[1h]))", "promoted"),
                        ("sum by (reason) (increase(freshet_model_rollbacks_total[1h]))", "back: {{reason}}"),
                    ],
                    width=6,
                ),
            ),
        ),
    ),
    {"variant": "freshet_prequential_rank_count"},
)

DRIFT = Dashboard(
    "freshet-drift",
    "Freshet: drift",
    (
        Row(
            "States",
            (
                Panel(
                    "State by signal",
                    [("max by (signal, reference) (freshet_drift_state)", "{{signal}} / {{reference}}")],
                    "state-timeline",
                    states=_DRIFT_STATES,
                    width=18,
                ),
                Panel(
                    "Detections",
                    [("sum by (signal, level) (increase(freshet_drift_detections_total[1d]))", "{{signal}} {{level}}")],
                    width=6,
                ),
            ),
        ),
        Row(
            "$signal",
            (
                Panel(
                    "PSI and what chance makes of it",
                    [
                        ('freshet_drift_statistic{signal="$signal",stat="psi"}', "PSI {{reference}}"),
                        ('freshet_drift_critical_value{signal="$signal"}', "critical {{reference}}"),
                    ],
                    lines=(0.1, 0.25),
                    width=6,
                ),
                Panel(
                    "Excess over chance",
                    [('freshet_drift_excess_ratio{signal="$signal"}', "{{reference}}")],
                    lines=(0.1, 0.25),
                    width=6,
                ),
                Panel("Events behind it", [('freshet_drift_window_events{signal="$signal"}', "{{window}}")], width=6),
                Panel(
                    "Other distances",
                    [('freshet_drift_statistic{signal="$signal",stat!="psi"}', "{{stat}} {{reference}}")],
                    width=6,
                ),
            ),
            repeat="signal",
        ),
        Row(
            "Inputs",
            (
                Panel(
                    "New users",
                    [
                        (
                            'sum(rate(freshet_user_events_total{status="new"}[15m]))'
                            " / sum(rate(freshet_user_events_total[15m]))",
                            "share of events",
                        )
                    ],
                    unit="percentunit",
                ),
                Panel(
                    "Items the live model does not know",
                    [
                        (
                            'sum(rate(freshet_item_events_total{status="out_of_vocabulary"}[15m]))'
                            " / sum(rate(freshet_item_events_total[15m]))",
                            "share of events",
                        ),
                        ("sum(rate(freshet_new_items_total[15m]))", "first met, per s"),
                    ],
                    unit="percentunit",
                    lines=(0.05,),
                ),
                Panel(
                    "Feed",
                    [("max by (check) (freshet_data_quality_state)", "{{check}}")],
                    "state-timeline",
                    states=_PASS,
                ),
                Panel(
                    "History length",
                    [("sum by (le) (increase(freshet_history_items_bucket[15m]))", "{{le}}")],
                    "heatmap",
                    width=12,
                ),
                Panel(
                    "Time since the previous event",
                    [("sum by (le) (increase(freshet_inter_arrival_seconds_bucket[15m]))", "{{le}}")],
                    "heatmap",
                    width=12,
                ),
            ),
        ),
        Row(
            "Outputs",
            (
                Panel(
                    "Best score, live model",
                    [('sum by (le) (increase(freshet_top_score_bucket{slot="live"}[15m]))', "{{le}}")],
                    "heatmap",
                    width=12,
                ),
                Panel(
                    "Median best score",
                    [(_quantile(0.5, "freshet_top_score", "slot"), "{{slot}}")],
                    width=12,
                ),
            ),
        ),
        Row(
            "Beyond accuracy",
            tuple(
                Panel(title, [(f"max by (variant) ({metric})", "{{variant}}")], unit=unit)
                for title, metric, unit in (
                    ("Catalogue coverage", "freshet_catalogue_coverage_ratio", "percentunit"),
                    ("Gini of recommended items", "freshet_recommendation_gini_ratio", "short"),
                    ("Popularity percentile", "freshet_recommendation_popularity_ratio", "percentunit"),
                    ("Novelty, bits", "freshet_recommendation_novelty", "short"),
                    ("Distance within a list", "freshet_intra_list_distance_ratio", "short"),
                    ("Churn of a user's list", "freshet_list_churn_ratio", "percentunit"),
                )
            ),
        ),
    ),
    {"signal": "freshet_drift_state"},
)

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
                Panel("Records read", _rate("freshet_events_consumed_total", "topic"), unit="cps"),
                Panel("Outcomes", _rate("freshet_events_applied_total", "result"), unit="cps", stacked=True),
                Panel("Dead letters", _rate("freshet_dead_letters_total", "reason"), unit="cps", stacked=True),
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
                Panel("Event to durable history", _percentiles("freshet_event_to_history_seconds"), unit="s", width=6),
                Panel("Checkpoint write", _percentiles("freshet_history_write_seconds"), unit="s", width=6),
                Panel(
                    "Bytes on disk",
                    [
                        ("sum by (store) (freshet_state_bytes)", "{{store}}"),
                        ("sum by (store) (freshet_state_pending_compaction_bytes)", "{{store}} to compact"),
                    ],
                    unit="bytes",
                    width=6,
                ),
                Panel("Checkpoints", _rate("freshet_checkpoints_total", "result"), unit="cps", width=6),
            ),
        ),
        Row(
            "Scoring",
            (
                Panel(
                    "Stage, p95",
                    [(_quantile(0.95, "freshet_scoring_seconds", "stage"), "{{stage}}")],
                    unit="s",
                    width=6,
                ),
                Panel(
                    "Users per batch",
                    [(_quantile(q, "freshet_scoring_batch_users"), f"p{q * 100:.0f}") for q in (0.5, 0.95)],
                    width=6,
                ),
                Panel(
                    "Failures",
                    [
                        *_rate("freshet_scoring_failures_total", "reason"),
                        ("sum by (slot) (rate(freshet_nonfinite_scores_total[5m]))", "not finite, {{slot}}"),
                    ],
                    unit="cps",
                    width=6,
                ),
                Panel("Popularity instead", _rate("freshet_fallback_lists_total", "reason"), unit="cps", width=6),
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
                        (_quantile(0.5, "freshet_training_round_seconds", "stage"), "{{stage}}"),
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

DASHBOARDS = (OVERVIEW, DRIFT, PIPELINE)
