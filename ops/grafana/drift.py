"""The dashboard of drift: states by signal, inputs, outputs, properties of lists."""

from __future__ import annotations

from ops.grafana.promql import DRIFT_STATES, PASS, quantile
from ops.grafana.render import Dashboard, Panel, Row

__all__ = ["DRIFT"]

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
                    states=DRIFT_STATES,
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
                    states=PASS,
                ),
                Panel(
                    "Counts that cannot be added up",
                    [("sum by (reason) (increase(freshet_monitor_records_refused_total[15m]))", "{{reason}}")],
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
                    [(quantile(0.5, "freshet_top_score", "slot"), "{{slot}}")],
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
