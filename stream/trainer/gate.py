"""The gate: decides from evidence whether a candidate may replace the live model.

The candidate must be "not worse", it need not be "better": a model that knows newer items and newer tastes has a value
that interactions held out earlier cannot show. The candidate passes when the lower end of the 95 % interval of its mean
paired difference in NDCG@20 stays above -margin. With few held-out users that interval is wider than any small margin,
and not even an equal model could pass. Therefore the margin is at least so large that an equal model passes four times
in five. With more users the margin shrinks to the configured share.

The candidate must also beat popularity, unless it is better than the live model beyond doubt: the live model is then
worse than both, and refusing the candidate would keep it in service.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.evaluate import allowed_loss
from ops.labels import Gate

__all__ = ["Evidence", "GateConfig", "judge"]


@dataclass(frozen=True)
class GateConfig:
    margin: float = 0.01
    """Share of the live model's NDCG@20 that a candidate may lose."""
    coverage: float = 0.7
    """Share of the distinct items of the live model's lists that a candidate's lists must reach."""
    least_users: int = 20
    """Held-out users below which nothing can be judged."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin must be in [0, 1), got {self.margin}")
        if not 0 <= self.coverage <= 1:
            raise ValueError(f"coverage must be in [0, 1], got {self.coverage}")
        if self.least_users < 2:
            raise ValueError(f"least_users must be at least 2, got {self.least_users}")


@dataclass(frozen=True)
class Evidence:
    """Figures on the same held-out users for all arms. `live_ndcg`, `live_recall` and `lower` are None before the first
    model."""

    users: int
    finite: bool  # parameters and scores of the candidate
    ndcg: float  # NDCG@20 of the candidate
    recall: float
    popularity_ndcg: float
    popularity_recall: float
    live_ndcg: float | None = None
    live_recall: float | None = None
    lower: float | None = None  # end of the 95 % interval of the mean paired difference candidate - live
    coverage: int = 0  # distinct items in the candidate's lists
    live_coverage: int = 0

    @property
    def difference(self) -> float | None:
        return None if self.live_ndcg is None else self.ndcg - self.live_ndcg


def judge(evidence: Evidence, config: GateConfig, *, served_above_popularity: bool = False) -> dict[Gate, str]:
    """The gates that the candidate fails, each with its reason; empty when it may go live. `served_above_popularity`:
    the reranker that is published with it was measured, and its lists are better than those of popularity, even if the
    model's own lists are not."""
    failed: dict[Gate, str] = {}
    if not evidence.finite or not math.isfinite(evidence.ndcg):
        return {"finite": "its parameters or scores are not finite"}
    if evidence.users < config.least_users:
        failed["holdout"] = f"{evidence.users} held-out users, {config.least_users} are needed to judge"
    difference, lower = evidence.difference, evidence.lower
    if evidence.live_ndcg is not None and difference is not None and lower is not None:
        if lower < -allowed_loss(config.margin * evidence.live_ndcg, difference, lower):
            failed["holdout"] = f"NDCG@20 differs from live by {difference:+.4f}, 95 % from {lower:+.4f}"
        if evidence.coverage < config.coverage * evidence.live_coverage:
            failed["coverage"] = f"its lists hold {evidence.coverage} items, those of live {evidence.live_coverage}"
    better_than_live = lower is not None and lower > 0
    if evidence.ndcg <= evidence.popularity_ndcg and not (better_than_live or served_above_popularity):
        failed["popularity"] = f"NDCG@20 {evidence.ndcg:.4f} is not above popularity's {evidence.popularity_ndcg:.4f}"
    return failed
