"""The closed sets of values in Freshet, each defined once: for labels of metrics, reasons and decisions."""

from __future__ import annotations

from typing import Any, Literal, get_args

__all__ = [
    "ApiRoute",
    "ApiStatus",
    "ApiStore",
    "Arm",
    "Check",
    "EventOutcome",
    "FallbackReason",
    "Gate",
    "GateFigure",
    "ListVariant",
    "Noise",
    "Reference",
    "RejectionReason",
    "RollbackReason",
    "RoundOutcome",
    "ServingSlot",
    "Signal",
    "Slot",
    "Stage",
    "Trigger",
    "Variant",
    "Verdict",
    "values",
]

# -- events ------------------------------------------------------------------------------------------------------------

RejectionReason = Literal["decode", "schema", "timestamp", "oversize"]
# The outcome of an event for the list that its user saw last.
EventOutcome = Literal["hit", "miss", "repeat", "negative", "out_of_vocabulary", "no_list", "stale_list"]

# -- lists and models --------------------------------------------------------------------------------------------------

# The model that is served to a share of the users before it may go live is the *canary*. On topics, in dashboards and
# for consumers it is the slot "candidate" and the variant "treatment".
ServingSlot = Literal["live", "candidate", "previous"]
# "retired": the model of a list has left its slot; "none": a list without a model.
Slot = Literal["live", "candidate", "previous", "retired", "none"]
ListVariant = Literal["control", "treatment", "popularity"]
Variant = Literal["control", "treatment", "popularity", "previous_shadow"]  # the last: never shown, only compared
FallbackReason = Literal["cold_user", "no_model", "error"]

# -- drift and the feed ------------------------------------------------------------------------------------------------

Signal = Literal[
    "item_popularity",
    "unknown_item_rate",
    "new_user_rate",
    "history_length",
    "inter_arrival",
    "event_type",
    "score_top1",
    "score_margin",
]
Reference = Literal["training", "baseline"]
Check = Literal["rate", "dead_letters", "duplicates", "user_share", "clock", "items", "signals"]

# -- the API -----------------------------------------------------------------------------------------------------------

ApiRoute = Literal[
    "recommendations", "similar", "trending", "new", "history", "forget", "events", "health", "metrics", "other"
]
ApiStore = Literal["lists", "histories"]
ApiStatus = Literal["2xx", "3xx", "4xx", "503", "5xx"]  # 503 is separate: the right answer is not known at the moment

# -- rounds and promotions ---------------------------------------------------------------------------------------------

Trigger = Literal["schedule", "drift", "quality", "vocabulary", "manual"]
RoundOutcome = Literal["promoted", "rejected", "failed", "skipped"]
Gate = Literal["holdout", "popularity", "coverage", "finite", "skew", "canary", "data_quality", "cooldown"]
Stage = Literal["snapshot", "train", "evaluate", "rerank", "export"]  # of a round
Noise = Literal["low", "mid", "high"]  # of a diffusion step
Arm = Literal["candidate", "live", "popularity"]  # whose lists answer the gate's questions
RerankerArm = Literal["candidate", "serving", "model", "demand"]  # whose order of the same candidates is measured
GateFigure = Literal["recall_at_20", "ndcg_at_20"]
RollbackReason = Literal["quality", "nonfinite", "latency", "coverage", "manual"]
Verdict = Literal["ok", "suspected", "demand", "model"]  # on the live model's quality


def values(closed: Any) -> tuple[str, ...]:
    """All values of a closed set, in the order in which it names them.

    >>> values(Reference)
    ('training', 'baseline')
    """
    return get_args(closed)
