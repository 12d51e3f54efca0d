"""Chooses the reranker that serves, if any, by questions that it was not trained on.

Questions are in time order. A candidate is trained on the older ones, and compared on the newer ones by NDCG@20, in
pairs. It must be better beyond doubt than lists without a reranker: the model's own lists or, if these are worse or
there is no model, the items in most demand. If a reranker serves already, the candidate must not be worse than that
one. The serving reranker is dropped when the candidate is refused and lists without a reranker are better beyond doubt.
After the verdict, the chosen one is trained on all questions: it is better to know the newest demand than to have a
figure of exactly this reranker.

Legend: Q questions, M candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from model.evaluate import allowed_loss
from model.rerank.counts import CountsConfig
from model.rerank.features import USER_FEATURES, start_weights
from model.rerank.reranker import Examples, Reranker, RerankerConfig, fit_reranker

__all__ = ["ChoiceConfig", "RerankerChoice", "choose_reranker", "untrained_reranker"]

_CUTOFF = 20
_Z95 = 1.96  # standard normal quantile of a two-sided 95 % interval


@dataclass(frozen=True)
class ChoiceConfig:
    newer_share: float = 0.25
    """Share of the questions, the newest, that the rerankers are compared on."""
    most_examples: int = 12_000
    """Newest questions that are looked at."""
    margin: float = 0.01
    """Share of its NDCG@20 that the serving reranker's successor may lose."""
    reranker: RerankerConfig = field(default_factory=RerankerConfig)

    def __post_init__(self) -> None:
        if not 0 < self.newer_share < 1:
            raise ValueError(f"newer_share must be between 0 and 1, got {self.newer_share}")
        if self.most_examples < 1 or self.margin < 0:
            raise ValueError(f"need examples and a margin from 0, got {self.most_examples} and {self.margin}")


@dataclass(frozen=True)
class RerankerChoice:
    """`reranker` None: the model's own lists are served."""

    reranker: Reranker | None
    why: str
    questions: int = 0  # number of questions that the comparison used
    ndcg: float = math.nan  # NDCG@20 of the candidate
    model_ndcg: float = math.nan  # of the model's own lists
    demand_ndcg: float = math.nan  # of the items in most demand, with the best half-life
    serving_ndcg: float = math.nan  # of the reranker that served

    @property
    def above_demand(self) -> bool:
        """Whether the chosen reranker was measured, and is better than the items in most demand."""
        return self.reranker is not None and not self.why and self.ndcg > self.demand_ndcg


def untrained_reranker(counts: CountsConfig, demand: int, hidden: int) -> Reranker:
    """A reranker that orders by the demand at place `demand` of the half-lives, for features of such counts."""
    return Reranker(torch.from_numpy(start_weights(counts, demand)), len(USER_FEATURES), hidden).eval()


def choose_reranker(
    examples: Examples,
    serving: Reranker | None,
    start: Callable[[int], Reranker],
    demand: Sequence[int],
    config: ChoiceConfig,
    *,
    seed: int,
    stop: Callable[[], bool] = lambda: False,
    beside_model: bool = False,
) -> RerankerChoice:
    """Train a candidate and choose. `demand` are the places of the features for demand. `start` makes an untrained
    reranker that orders by one of them; the candidate starts from the feature that answers the older questions best.
    `beside_model` leaves out questions without a model's list, because these say nothing about such lists."""
    if beside_model:
        examples = examples.select(np.flatnonzero(examples.modelled > 0))
    examples = examples.select(np.arange(max(len(examples) - config.most_examples, 0), len(examples)))
    cut = len(examples) - int(len(examples) * config.newer_share)
    older, newer = examples.select(np.arange(cut)), examples.select(np.arange(cut, len(examples)))
    wanted = max(demand, key=lambda place: float(_demand_gains(older, place).mean())) if len(older) else demand[0]
    fitted = fit_reranker(untrained := start(wanted), older, config.reranker, seed=seed, stop=stop)
    if fitted is untrained or not len(newer):
        return RerankerChoice(serving, f"too few answers to learn from: {int((older.answers >= 0).sum())}")
    gains = _gains(newer, fitted)
    model, popular = _model_gains(newer), max((_demand_gains(newer, place) for place in demand), key=np.mean)
    served = None if serving is None else _gains(newer, serving)
    figures = (
        len(newer),
        float(gains.mean()),
        float(model.mean()),
        float(popular.mean()),
        math.nan if served is None else float(served.mean()),
    )
    plain = model if newer.modelled.any() and model.mean() >= popular.mean() else popular
    refused = _refused(gains, plain, served, config.margin)
    if refused:
        dropped = served is not None and _interval(served - plain)[2] < 0
        why = f"{refused}; the serving one is worse than lists without it" if dropped else refused
        return RerankerChoice(None if dropped else serving, why, *figures)
    everything = fit_reranker(start(wanted), examples, config.reranker, seed=seed, stop=stop)
    return RerankerChoice(everything, "", *figures)


def _refused(gains: np.ndarray, plain: np.ndarray, served: np.ndarray | None, margin: float) -> str:
    """Why the candidate may not serve; empty when it may."""
    mean, low, high = _interval(gains - plain)
    if low <= 0:
        return f"NDCG@20 differs from lists without it by {mean:+.4f}, 95 % from {low:+.4f} to {high:+.4f}"
    if served is not None:
        mean, low, high = _interval(gains - served)
        if low < -allowed_loss(margin * float(served.mean()), mean, low):
            return f"NDCG@20 differs from the serving reranker by {mean:+.4f}, 95 % from {low:+.4f}"
    return ""


def _interval(differences: np.ndarray) -> tuple[float, float, float]:
    """(Mean, the two ends of its 95 % interval)."""
    mean = float(differences.mean())
    distance = _Z95 * float(differences.std()) / math.sqrt(len(differences))
    return mean, mean - distance, mean + distance


def _gain(ranks: np.ndarray) -> np.ndarray:
    """float64 [Q]: NDCG@20 of ranks from 1; 0 for none."""
    return np.where((ranks > 0) & (ranks <= _CUTOFF), 1 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def _ranks(scores: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """int64 [Q]: ranks of the answers by scores [Q, M]; 0 where the answer is no candidate."""
    own = np.take_along_axis(scores, np.maximum(answers, 0)[:, None], 1)
    place = np.arange(scores.shape[1])
    ahead = (scores > own) | ((scores == own) & (place < answers[:, None]))
    return np.where(answers >= 0, ahead.sum(1) + 1, 0)


def _gains(examples: Examples, reranker: Reranker, block: int = 1_000) -> np.ndarray:
    parts = []
    for first in range(0, len(examples), block):
        part = examples.select(np.arange(first, min(first + block, len(examples))))
        scores = reranker.scores(part.items.astype(np.float32), part.users, part.valid)
        parts.append(_gain(_ranks(scores, part.answers)))
    return np.concatenate(parts)


def _model_gains(examples: Examples) -> np.ndarray:
    listed = (examples.answers >= 0) & (examples.answers < examples.modelled)
    return _gain(np.where(listed, examples.answers + 1, 0))


def _demand_gains(examples: Examples, feature: int) -> np.ndarray:
    scores = np.where(examples.valid, examples.items[:, :, feature].astype(np.float32), -np.inf)
    return _gain(_ranks(scores, examples.answers))
