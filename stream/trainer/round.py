"""A training round: from a snapshot of the view to a stored candidate, or to the reasons why it was refused.

A round runs in its own thread, and uses neither the view nor Kafka.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import torch

from model.artifact import Manifest
from model.recommend import Recommender
from model.rerank.choice import RerankerChoice, choose_reranker, untrained_reranker
from model.rerank.counts import CountsConfig
from model.rerank.reranker import Examples, Reranker
from ops.labels import RoundOutcome, Stage, Trigger
from ops.metrics import TrainerMetrics
from state.history import History
from stream.registry.artifacts import Artifacts, Provenance, load_reference, next_version
from stream.registry.reference import Reference
from stream.trainer.changed_users import Changed
from stream.trainer.config import TrainerConfig
from stream.trainer.exam import CUTOFF, pack
from stream.trainer.fine_tune import Fit, Round, fine_tune
from stream.trainer.history_view import HistoryView
from stream.wire.examples_topic import ExampleReader
from stream.wire.meaning import EventKinds
from stream.wire.records import Announcement

__all__ = ["Candidate", "RoundInput", "RoundInputs", "RoundWorker", "describe", "export_metrics"]

_REFERENCE_USERS = 1_000  # users whose scores give the reference distribution of scores


class RoundInput(NamedTuple):
    """The input of a round, taken from the view at one moment."""

    number: int  # of the round, since the start of the process
    trigger: Trigger
    version: str
    slot: Announcement | None  # the model that was live then
    live: Recommender | None  # the same, loaded; None when there is none or it cannot be used
    changed: dict[bytes, tuple[History, Changed]]
    replay: dict[bytes, History]
    provenance: Provenance
    seed: int
    snapshot_seconds: float
    new_interactions: int
    refit: bool
    cancel: threading.Event
    began: float  # monotonic seconds
    examples: Examples | None = None  # what the reranker learns from, in time order

    @property
    def parent(self) -> Announcement | None:
        """The model that the round starts from; None when it starts a new one."""
        return self.slot if self.live is not None and not self.refit else None


class RoundInputs:
    """Takes the input of rounds from the view."""

    def __init__(
        self, config: TrainerConfig, view: HistoryView, examples: ExampleReader, clock: Callable[[], float]
    ) -> None:
        self._config, self._view, self._examples, self._clock = config, view, examples, clock
        self._rng = np.random.default_rng(config.seed)
        self._rounds = 0

    def follow(self) -> None:
        """Take in the examples that have arrived; the view is followed by its owner."""
        self._examples.poll()

    def take(
        self, trigger: Trigger, refit: bool, slots: Mapping[str, Announcement], live: Recommender | None
    ) -> RoundInput | None:
        """The input of a new round; None when there is no user to learn from."""
        config, view = self._config, self._view
        start = time.perf_counter()
        next_offsets, new = view.next_offsets(), view.new_interactions
        changed, left = view.take_changed(config.changed_users)
        # The replay has no changed users: only those in `changed` are marked as learnt, so no others may be learnt.
        replay = view.sample(config.replay_users, self._rng.bytes(8), unchanged=True) if config.replay_users else {}
        if not changed and not replay:
            return None
        self._rounds += 1
        return RoundInput(
            self._rounds,
            trigger,
            next_version([announcement.version for announcement in slots.values()], int(self._clock() * 1000)),
            slots.get("live"),
            live,
            changed,
            replay,
            Provenance(view.identity, next_offsets, left),
            int(self._rng.integers(2**31)),
            time.perf_counter() - start,
            new,
            refit,
            threading.Event(),
            time.monotonic(),
            self._examples.examples(),
        )


class Candidate(NamedTuple):
    """The result of a round; `announcement` is None unless the candidate passed and is stored."""

    round: Round
    announcement: Announcement | None
    recommender: Recommender | None
    export_seconds: float
    choice: RerankerChoice | None = None  # of the reranker, if there were examples


class RoundWorker:
    """Makes candidates. `crash` is called with "fitted" and "stored" at these points; `fit` trains a learner."""

    def __init__(
        self,
        config: TrainerConfig,
        artifacts: Artifacts,
        device: torch.device,
        *,
        clock: Callable[[], float],
        crash: Callable[[str], None],
        fit: Fit,
    ) -> None:
        self._config, self._choice, self._threads = config.fine_tune, config.reranker, config.threads
        self._artifacts, self.device = artifacts, device
        self._clock, self._crash, self._fit = clock, crash, fit

    def start(self, given: RoundInput) -> Future[Candidate]:
        future: Future[Candidate] = Future()
        # A daemon thread: the process can end without waiting for a call of torch that does not check `cancel`.
        threading.Thread(target=self._work, args=(given, future), name="round", daemon=True).start()
        return future

    def _work(self, given: RoundInput, future: Future[Candidate]) -> None:
        try:
            future.set_result(self._round(given))
        except BaseException as error:  # noqa: BLE001 - raised again by whoever asks the future
            future.set_exception(error)

    def _round(self, given: RoundInput) -> Candidate:
        if self._threads:
            torch.set_num_threads(self._threads)
        parent = given.parent
        # Always load the parent from its artifact: the learner of a refused candidate must never become a parent.
        learner, origin = (None, None) if parent is None else self._artifacts.load(parent, self.device)
        start = time.perf_counter()
        choice = self._choose_reranker(given)
        chosen_seconds = time.perf_counter() - start
        outcome = fine_tune(
            learner,
            given.live,
            given.changed,
            given.replay,
            self._config,
            version=given.version,
            seed=given.seed,
            device=self.device,
            stop=given.cancel.is_set,
            fit=self._fit,
            served_above_popularity=choice is not None and choice.above_demand,
        )
        outcome.seconds["rerank"] = chosen_seconds
        self._crash("fitted")
        if outcome.failed:
            return Candidate(outcome, None, None, 0.0, choice)
        start = time.perf_counter()
        manifest = Manifest(
            version=given.version,
            parent="" if parent is None else parent.version,
            created=int(self._clock() * 1000),
            data_until=outcome.data_until_ms,
            metrics={f"{arm}.{figure}": value for (arm, figure), value in outcome.figures().items()},
        )
        recommender = outcome.learner.recommender(given.version)
        recommender.reranker = _reranker(given, outcome, choice)
        reference = _reference(given, recommender, self._config.events)
        provenance = given.provenance._replace(root=None if origin is None else origin.root)
        announcement = self._artifacts.save(outcome.learner, manifest, provenance, reference, recommender.reranker)
        self._crash("stored")
        return Candidate(outcome, announcement, recommender, time.perf_counter() - start, choice)

    def _choose_reranker(self, given: RoundInput) -> RerankerChoice | None:
        if given.examples is None or not len(given.examples):
            return None
        counts = CountsConfig()

        def start(wanted: int) -> Reranker:
            return untrained_reranker(counts, wanted, self._choice.reranker.hidden)

        serving = None if given.live is None else given.live.reranker
        demand, stop = range(len(counts.demand_days)), given.cancel.is_set
        return choose_reranker(
            given.examples,
            serving,
            start,
            demand,
            self._choice,
            seed=given.seed,
            stop=stop,
            beside_model=given.live is not None,
        )


def _reranker(given: RoundInput, outcome: Round, choice: RerankerChoice | None) -> Reranker | None:
    """The reranker that is published with the candidate. Before the first model, no list of a model was compared with
    the reranker's lists, so the chosen one is published only if the candidate's own lists are not above popularity."""
    if choice is None:
        return None if given.live is None else given.live.reranker
    evidence = outcome.evidence
    if given.live is None and evidence is not None and evidence.ndcg > evidence.popularity_ndcg:
        return None
    return choice.reranker


def _reference(given: RoundInput, recommender: Recommender, kinds: EventKinds) -> Reference:
    histories = [history for history, _ in given.changed.values()]
    asked = [*histories, *given.replay.values()][:_REFERENCE_USERS]
    scores = recommender.rank(pack(recommender.items, asked, kinds), CUTOFF).scores
    parent = None if given.parent is None else load_reference(given.parent)
    return Reference.fit(given.version, [*histories, *given.replay.values()], scores, parent)


def export_metrics(given: RoundInput, candidate: Candidate, metrics: TrainerMetrics, device: torch.device) -> None:
    """Put a round on the trainer's metrics."""
    round_ = candidate.round
    for stage, value in _seconds(given, candidate).items():
        metrics.training_round[stage].observe(value)
    metrics.training_examples.set(round_.users)
    metrics.training_loss_ratio["first"].set(round_.first_loss)
    metrics.training_loss_ratio["last"].set(round_.last_loss)
    metrics.training_loss_ratio["holdout"].set(round_.holdout_loss)
    for noise, loss in round_.noise_losses.items():
        metrics.training_timestep_loss_ratio[noise].set(loss)
    metrics.training_gradient_norm.set(round_.gradient_norm)
    metrics.training_nonfinite_batches.inc(round_.dropped_batches)
    for figure, value in round_.figures().items():
        metrics.candidate_metric[figure].set(value)
    if candidate.choice is not None and candidate.choice.questions:
        choice = candidate.choice
        metrics.reranker_ndcg["candidate"].set(choice.ndcg)
        metrics.reranker_ndcg["serving"].set(choice.serving_ndcg)
        metrics.reranker_ndcg["model"].set(choice.model_ndcg)
        metrics.reranker_ndcg["demand"].set(choice.demand_ndcg)
    if device.type == "cuda":
        metrics.gpu_memory_peak_bytes.set(torch.cuda.max_memory_allocated(device))


def _seconds(given: RoundInput, candidate: Candidate) -> dict[Stage, float]:
    return {"snapshot": given.snapshot_seconds, **candidate.round.seconds, "export": candidate.export_seconds}


def describe(given: RoundInput, candidate: Candidate, outcome: RoundOutcome, why: str) -> str:
    """The outcome of a round, for one line of a log."""
    round_, evidence = candidate.round, candidate.round.evidence
    parts = [
        f"{given.version} from {given.parent.version if given.parent else 'nothing'}",
        f"{round_.users} users ({len(given.changed)} changed)",
        f"{len(round_.learner.items)} items (+{round_.new_items})",
        f"loss {round_.first_loss:.3f} -> {round_.last_loss:.3f}",
    ]
    if evidence is not None:
        live = "none" if evidence.live_ndcg is None else f"{evidence.live_ndcg:.4f}"
        bound = "" if evidence.lower is None else f", difference {evidence.difference:+.4f} from {evidence.lower:+.4f}"
        parts.append(
            f"NDCG@20 {evidence.ndcg:.4f}, live {live}, popularity {evidence.popularity_ndcg:.4f}"
            f" on {evidence.users} users{bound}"
        )
    choice = candidate.choice
    if choice is not None:
        parts.append(_in_words(choice))
    parts.append(f"{outcome}{': ' if why else ''}{why}")
    parts.append(", ".join(f"{stage} {value:.1f} s" for stage, value in _seconds(given, candidate).items()))
    return "; ".join(parts)


def _in_words(choice: RerankerChoice) -> str:
    """The outcome of choosing a reranker; figures that were not measured are left out."""
    kept = "chosen" if choice.reranker is not None and not choice.why else "not chosen"
    why = f" ({choice.why})" if choice.why else ""
    if not choice.questions:
        return f"reranker {kept}{why}"
    figures = {"model": choice.model_ndcg, "demand": choice.demand_ndcg, "serving": choice.serving_ndcg}
    others = "".join(f", {name} {value:.4f}" for name, value in figures.items() if not math.isnan(value))
    return f"reranker {kept}{why}: NDCG@20 {choice.ndcg:.4f}{others} on {choice.questions} lists"
