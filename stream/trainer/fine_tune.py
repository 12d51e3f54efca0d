"""One training round without Kafka: it makes a candidate from histories and a parent, and judges it.

So that the evidence is honest, the gate judges a candidate that was not trained on the held-out interactions, and these
are not used to choose anything about the candidate. Only after the verdict, a short last pass trains the candidate on
all interactions, so that the live model knows the newest tastes. The figures published with the model stay those of the
gate. After the last pass, two checks find what can fail silently: the scores must be finite, and NDCG@20 on the
interactions held out before must not have become much worse.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from model.batch import Histories
from model.config import ModelConfig, preset
from model.errors import ModelError, NonFiniteScores
from model.items import ItemIndex
from model.learner import Learner
from model.popularity import DecayedPopularity
from model.recommend import Recommender
from model.training import FitReport
from ops.labels import Arm, Gate, GateFigure, Noise, Stage
from state.history import History
from stream.trainer.changed_users import Changed
from stream.trainer.exam import Exam, pack
from stream.trainer.gate import Evidence, GateConfig, judge
from stream.trainer.holdout import hold_out
from stream.wire.meaning import EventKinds

__all__ = ["FineTuneConfig", "Fit", "Round", "Stopped", "epochs_for", "fine_tune"]

Fit = Callable[[Learner, Histories, int, Callable[[], bool]], FitReport]  # (learner, histories, epochs, stop)


_LOSS_USERS = 500
_UNDONE = 0.1  # share of its NDCG@20 that a candidate may lose in the last pass; more is a fault, not chance


class Stopped(Exception):
    """The round was stopped; nothing of it is kept."""


def fit(learner: Learner, histories: Histories, epochs: int, stop: Callable[[], bool]) -> FitReport:
    return learner.fit(histories, epochs=epochs, stop=stop)


@dataclass(frozen=True)
class FineTuneConfig:
    first_epochs: int = 30
    """Epochs of a model from nothing."""
    epochs: int = 4
    """Epochs of a fine-tuning round."""
    last_epochs: int = 1
    """Epochs on everything, after the verdict."""
    first_updates: int = 500
    """Least optimizer steps of a model from nothing: epochs of few users are few steps."""
    updates: int = 60
    """Least optimizer steps of a fine-tuning round."""
    last_updates: int = 15
    """Least optimizer steps on everything, after the verdict."""
    holdout_share: float = 0.1
    """Share of the new interactions that the exam holds out."""
    popularity_half_life_days: float = 7.0
    """Half-life of the popularity that a candidate is compared with."""
    exam_users: int = 5_000
    """Most users whose held-out interactions are asked about, drawn at random."""
    exam_least_users: int = 100
    """Users on both sides of the cut below which each user's own newest interactions are held out."""
    events: EventKinds = field(default_factory=EventKinds)  # what each kind of event means
    # Of a model from nothing; children keep their parent's.
    model: ModelConfig = field(default_factory=lambda: preset("stream"))
    gate: GateConfig = field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        passes = ("first_epochs", "epochs", "last_epochs", "first_updates", "updates", "last_updates")
        for name in (*passes, "exam_users", "exam_least_users", "popularity_half_life_days"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.holdout_share < 1:
            raise ValueError(f"holdout_share must be between 0 and 1, got {self.holdout_share}")


@dataclass
class Round:
    """The outcome of a round. `failed` names the gates that refused; when it is empty, the learner may be published."""

    learner: Learner
    users: int
    new_items: int
    data_until_ms: int  # the newest interaction that the published model has seen
    first_loss: float = float("nan")
    last_loss: float = float("nan")
    holdout_loss: float = float("nan")  # of users whose newest interactions were held out
    noise_losses: dict[Noise, float] = field(default_factory=dict)  # the same, by the noise of the diffusion step
    gradient_norm: float = float("nan")
    dropped_batches: int = 0
    evidence: Evidence | None = None
    failed: dict[Gate, str] = field(default_factory=dict)
    seconds: dict[Stage, float] = field(default_factory=dict)  # of train, evaluate and rerank

    def learnt(self, report: FitReport) -> None:
        """Note a pass. Raises `Stopped` when it was cut short."""
        if report.stopped:
            raise Stopped
        if math.isnan(self.first_loss):
            self.first_loss = report.first.loss
        self.last_loss, self.gradient_norm = report.last.loss, report.last.gradient_norm
        self.dropped_batches += report.dropped_batches

    def figures(self) -> dict[tuple[Arm, GateFigure], float]:
        """The figures of the gate's evidence; empty when there were no questions."""
        evidence = self.evidence
        if evidence is None or not evidence.users:
            return {}
        figures: dict[tuple[Arm, GateFigure], float] = {
            ("candidate", "ndcg_at_20"): evidence.ndcg,
            ("candidate", "recall_at_20"): evidence.recall,
            ("popularity", "ndcg_at_20"): evidence.popularity_ndcg,
            ("popularity", "recall_at_20"): evidence.popularity_recall,
        }
        if evidence.live_ndcg is not None and evidence.live_recall is not None:
            figures["live", "ndcg_at_20"] = evidence.live_ndcg
            figures["live", "recall_at_20"] = evidence.live_recall
        return figures

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def fine_tune(
    learner: Learner | None,
    live: Recommender | None,
    changed: Mapping[bytes, tuple[History, Changed]],
    replay: Mapping[bytes, History],
    config: FineTuneConfig,
    *,
    version: str,
    seed: int,
    device: torch.device,
    stop: Callable[[], bool] = lambda: False,
    fit: Fit = fit,
    served_above_popularity: bool = False,
) -> Round:
    """Train `learner` (the live model's, changed in place; None: a new one) and judge it against `live`.

    Raises `Stopped` when `stop` returned True, and `ModelError` when there is nothing to learn from.
    """
    known, questions = hold_out(changed, config.holdout_share, config.exam_least_users, config.events)
    full = [history for history, _ in changed.values()] + list(replay.values())
    items = dict.fromkeys(item for history in full for item in history.items)
    if not items:
        raise ModelError("there is nothing to learn from: no history holds an item")
    epochs, updates = config.epochs, config.updates
    if learner is None:
        epochs, updates = config.first_epochs, config.first_updates
        learner = Learner.fresh(config.model, ItemIndex(tuple(items)), seed=seed, device=device)
        new_items = len(items)
    else:
        new_items = learner.grow(items)
    until_ms = max(history.newest_ms for history in full)
    outcome = Round(learner, len(full), new_items, until_ms)

    lessons = pack(learner.items, [*known.values(), *replay.values()], config.events)
    with outcome.stage("train"):
        outcome.learnt(fit(learner, lessons, epochs_for(learner, lessons, epochs, updates), stop))
    with outcome.stage("evaluate"):
        rng = np.random.default_rng(seed)
        asked = list(questions.values())
        if len(asked) > config.exam_users:
            asked = [asked[i] for i in rng.choice(len(asked), config.exam_users, replace=False)]
        exam = Exam(learner.items, asked, config.events)
        popularity = DecayedPopularity(learner.items, config.popularity_half_life_days).fit(lessons)
        outcome.evidence = exam.evidence(_recommender(learner, version), live, popularity, rng)
        blind = pack(learner.items, [changed[user][0] for user in islice(questions, _LOSS_USERS)], config.events)
        steps = learner.config.schedule.steps
        outcome.holdout_loss = learner.loss_ratio(blind, 0, steps)
        noises: tuple[Noise, ...] = ("low", "mid", "high")
        for place, noise in enumerate(noises):
            first = place * steps // 3
            outcome.noise_losses[noise] = learner.loss_ratio(blind, first, max((place + 1) * steps // 3, first + 1))
    outcome.failed = judge(outcome.evidence, config.gate, served_above_popularity=served_above_popularity)
    if outcome.failed:
        return outcome
    with outcome.stage("train"):
        lessons = pack(learner.items, full, config.events)
        epochs = epochs_for(learner, lessons, config.last_epochs, config.last_updates)
        outcome.learnt(fit(learner, lessons, epochs, stop))
    with outcome.stage("evaluate"):
        outcome.failed = _undone(exam, _recommender(learner, version), outcome.evidence.ndcg)
    return outcome


def epochs_for(learner: Learner, lessons: Histories, epochs: int, updates: int) -> int:
    """At least `epochs`, and as many as `updates` optimizer steps need."""
    batches = -(-len(lessons) // learner.config.batch_users)
    return max(epochs, -(-updates // max(batches, 1)))


def _undone(exam: Exam, recommender: Recommender | None, ndcg: float) -> dict[Gate, str]:
    """The gates that a candidate which had passed with `ndcg` fails after the last pass, with reasons."""
    try:
        after = float("nan") if recommender is None else float(exam.ndcg(recommender).mean())
    except NonFiniteScores:
        after = float("nan")
    if not math.isfinite(after):
        return {"finite": "the last pass left parameters or scores that are not finite"}
    if after < ndcg * (1 - _UNDONE):
        return {"holdout": f"the last pass undid it: NDCG@20 {ndcg:.4f} before, {after:.4f} after"}
    return {}


def _recommender(learner: Learner, version: str) -> Recommender | None:
    """None when the parameters are not finite."""
    try:
        return learner.recommender(version)
    except ModelError:
        return None
