"""The dashboard for the person on call: health, freshness, quality, versions."""

from __future__ import annotations

from ops.grafana.promql import DRIFT_STATES, PASS, percentiles
from ops.grafana.render import Dashboard, Panel, Row

__all__ = ["OVERVIEW"]

_UPLIFT = (
    'variant:freshet_hit_at_10:ratio_rate1h{variant="control"}'
    ' / on() variant:freshet_hit_at_10:ratio_rate1h{variant="popularity"} - 1'
)
_AGE = 'time() - max(freshet_model_data_timestamp_seconds{slot="live"})'
# Outcomes per arm that show a relative change of 10 % at this hit rate: one look, 1 % false alarms, 80 % power.
_NEEDED = (
    '2006 * (1 - variant:freshet_hit_at_10:ratio_rate1d{variant="control"})'
    ' / variant:freshet_hit_at_10:ratio_rate1d{variant="control"}'
)


def _hits(k: int) -> str:
    bucket = f'freshet_prequential_rank_bucket{{le="{k}.0",variant=~"$variant"}}'
    count = 'freshet_prequential_rank_count{variant=~"$variant"}'
    return f"sum by (variant) (increase({bucket}[1h])) / sum by (variant) (increase({count}[1h]))"


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
                    states=DRIFT_STATES,
                    width=14,
                ),
                Panel(
                    "Feed",
                    [("max by (check) (freshet_data_quality_state)", "{{check}}")],
                    "stat",
                    states=PASS,
                    width=10,
                ),
            ),
        ),
        Row(
            "Freshness",
            (
                Panel("Event to recommendation", percentiles("freshet_event_to_recommendation_seconds"), unit="s"),
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
            "Pilot",
            (
                Panel(
                    "Hit rate and NDCG by variant",
                    [
                        ("max by (pilot, variant) (freshet_pilot_hit_ratio)", "hit rate {{pilot}} {{variant}}"),
                        ("max by (pilot, variant) (freshet_pilot_ndcg)", "NDCG {{pilot}} {{variant}}"),
                    ],
                ),
                Panel(
                    "Against control",
                    [("max by (pilot, variant, bound) (freshet_pilot_difference)", "{{variant}} {{bound}}")],
                    lines=(0,),
                    help="Bounds of the hit rate's difference, right whenever they are read.",
                ),
                Panel(
                    "Verdict",
                    [
                        ("max by (pilot, variant) (freshet_pilot_verdict)", "{{pilot}} {{variant}}"),
                        ("sum(increase(freshet_pilot_stops_total[1h]))", "stopped by the guardrail"),
                    ],
                    help="1 better than control, -1 worse.",
                ),
                Panel(
                    "Users",
                    [
                        ("max by (pilot, variant) (freshet_pilot_users)", "{{pilot}} {{variant}}"),
                        ("max by (pilot) (freshet_pilot_share_ratio)", "share in a variant"),
                        ("max by (pilot) (freshet_pilot_split_probability)", "probability of this split"),
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
                        ("max by (slot) (freshet_model_reranked)", "{{slot}} reranked"),
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
