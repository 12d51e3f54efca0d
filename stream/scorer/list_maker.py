"""Makes the next list of every user: ranked by the first model that can rank it, else by popularity."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from model.errors import NonFiniteScores
from model.ranker import Ranked
from model.recommend import Recommender
from ops.labels import FallbackReason, ListVariant, ServingSlot
from ops.metrics import ScorerMetrics, Tally
from state.popularity import Popularity
from stream.pilots.pilot import AS_SERVED, Pilot
from stream.scorer.config import ListConfig
from stream.scorer.journal import Journal, NoJournal
from stream.scorer.list_signals import ListSignals
from stream.scorer.listable import unlisted
from stream.scorer.models import Models
from stream.scorer.pilot_lists import PilotLists
from stream.scorer.reasons import with_reasons
from stream.scorer.requests import Request
from stream.scorer.two_stages import TwoStages
from stream.wire.catalogue import Catalogue
from stream.wire.records import CANARY_SLOT, CANARY_VARIANT, InPilot, Recommendation, ScoredItem

__all__ = ["Answer", "CanaryUser", "ListMaker", "Shadow", "Twin"]

log = logging.getLogger(__name__)


class Shadow(NamedTuple):
    """The list that another model would have shown: the previous model, or the live model to a user of the canary."""

    model: Recommender
    items: tuple[str, ...]


class Twin(NamedTuple):
    """The list that a pilot's user would have been shown without the pilot."""

    version: str  # of its model, "" for popularity
    items: tuple[str, ...]


class Answer(NamedTuple):
    """A list on its way to `recommendations`; `value` None is the tombstone of a user who was forgotten."""

    request: Request
    variant: ListVariant
    model: Recommender | None  # None for popularity
    items: tuple[ScoredItem, ...]
    value: bytes | None
    shadow: Shadow | None = None
    made: bytes = b""  # `stream.wire.made`
    pilot: InPilot | None = None
    twin: Twin | None = None  # of a list that a pilot's variant made

    @property
    def version(self) -> str:
        """Of the model, "" for popularity."""
        return "" if self.model is None else self.model.version


class CanaryUser(NamedTuple):
    """A user whom the canary will answer, with the list that the live model would have shown."""

    request: Request
    shadow: Shadow | None


class _List(NamedTuple):
    """A ranked list, not encoded yet."""

    variant: ListVariant
    model: Recommender | None
    items: tuple[ScoredItem, ...]
    pilot: InPilot | None = None
    twin: Twin | None = None


class _RankedBatch(NamedTuple):
    lists: list[_List]  # one for each user asked
    shadows: list[Shadow | None]  # one for each user compared
    first_stage: Ranked | None = None  # the model's own order for the users asked, then for those compared


class ListMaker:
    """Makes the lists of a batch in up to three calls: `make` for most users, `answer_canary` for those of the canary,
    and `with_shadows` once the lists are delivered, because no list needs to wait for a comparison."""

    def __init__(
        self,
        config: ListConfig,
        popularity: Popularity,
        catalogue: Catalogue,
        metrics: ScorerMetrics,
        tally: Tally,
        signals: ListSignals,
        stages: TwoStages,
        pilots: PilotLists,
        clock: Callable[[], float] = time.time,
        journal: Journal | None = None,
    ) -> None:
        self._journal = journal or NoJournal()
        self._config, self._popularity, self._catalogue, self._clock = config, popularity, catalogue, clock
        self._stages, self._pilots = stages, pilots
        self._metrics, self._tally, self._signals = metrics, tally, signals

    def make(self, requests: Sequence[Request], models: Models) -> tuple[list[Answer], list[CanaryUser]]:
        """Answers to requests of distinct users, and the users whom `answer_canary` answers."""
        forgotten: list[Request] = []
        others: list[Request] = []
        canary_users: list[Request] = []
        for request in requests:
            if request.reason == "forget":
                forgotten.append(request)
            else:
                (canary_users if models.gets_canary(request.user) else others).append(request)
        ranked = self._rank(others, models, canary_users)
        answers = [Answer(request, "popularity", None, (), None) for request in forgotten]
        lists = ranked.lists
        if (pilot := self._pilots.current) is not None:
            pairs = zip(others, lists, strict=True)
            lists = [self._in_pilot(pilot, *pair, ranked, row) for row, pair in enumerate(pairs)]
        answers += self._encode(others, lists)
        return answers, [CanaryUser(*pair) for pair in zip(canary_users, ranked.shadows, strict=True)]

    def answer_canary(self, canary_users: Sequence[CanaryUser], models: Models) -> list[Answer]:
        """Let the canary answer its users. This is a call of its own because ranking few users takes almost as long as
        ranking many, and the users of other models need not wait for it."""
        requests = [request for request, _ in canary_users]
        ranked = self._rank_with(models.canary, CANARY_SLOT, CANARY_VARIANT, requests)
        answers = self._encode(requests, (ranked or self._rank(requests, models)).lists)
        # The live model's list is compared with the canary's; where the canary made no list, there is no comparison.
        return [
            answer if answer.variant != CANARY_VARIANT else answer._replace(shadow=shadow)
            for answer, (_, shadow) in zip(answers, canary_users, strict=True)
        ]

    def with_shadows(self, answers: Sequence[Answer], models: Models) -> list[Answer]:
        """The same answers, some of them with the list that the previous model would have shown: it is kept with the
        list until the user's next event."""
        live, previous = models.live, models.previous
        answers = list(answers)
        if live is None or previous is None or previous.version == live.version:
            return answers
        served = [place for place, answer in enumerate(answers) if answer.model is live and answer.twin is None]
        places = self._signals.to_shadow(served, self._clock())
        if not places:
            return answers
        try:
            ranking = self._stages.rank(previous, [answers[place].request for place in places])
        except Exception as error:  # no list depends on the shadow  # noqa: BLE001
            log.warning("model %s did not answer beside the one that serves: %s", previous.version, error)
            return answers
        for place, shadow in zip(places, _shadows(previous, ranking.items), strict=True):
            answers[place] = answers[place]._replace(shadow=shadow)
        return answers

    # -- ranking -------------------------------------------------------------------------------------------------------

    def _rank(self, requests: Sequence[Request], models: Models, compared: Sequence[Request] = ()) -> _RankedBatch:
        """Rank with the first model that can. The live model also ranks the users `compared`: they cost little in the
        same call, but almost as much as all users in a separate call."""
        ranked = self._rank_with(models.live, "live", "control", requests, compared)
        if ranked is not None:
            return ranked
        no_shadows: list[Shadow | None] = [None] * len(compared)
        ranked = self._rank_with(models.previous, "previous", "control", requests)
        if ranked is not None:
            return _RankedBatch(ranked.lists, no_shadows)
        reason: FallbackReason = "no_model" if models.live is None and models.previous is None else "error"
        return _RankedBatch([self._popular(request, reason) for request in requests], no_shadows)

    def _rank_with(
        self,
        model: Recommender | None,
        slot: ServingSlot,
        variant: ListVariant,
        requests: Sequence[Request],
        compared: Sequence[Request] = (),
    ) -> _RankedBatch | None:
        """Rank with one model; None when it is missing or fails. Another model answers the users `compared`: for them
        this model only says what it would have shown."""
        if not (requests or compared):
            return _RankedBatch([], [])
        if model is None:
            return None
        asked = [*requests, *compared]
        try:
            with self._metrics.scoring["forward"].time():
                ranking = self._stages.rank(model, asked, noted=len(requests) if slot == "live" else 0)
        except NonFiniteScores as error:
            log.error("%s; none of these scores are published", error)
            self._metrics.nonfinite_scores[slot].inc()
            if slot == "live":
                self._signals.window_signals.nonfinite(max(request.newest_ms for request in asked), len(asked))
            return None
        except Exception as error:  # whatever it is, another model or popularity can answer
            log.exception("model %s failed on %d users", model.version, len(asked))
            self._metrics.scoring_failures["oom" if "out of memory" in str(error) else "model"].inc()
            return None
        with self._metrics.scoring["topk"].time():
            lists: list[_List] = []
            # The rows of `compared` come after those of `requests`.
            for row, (request, names, scores) in enumerate(zip(requests, ranking.items, ranking.scores, strict=False)):
                if not names:
                    lists.append(self._popular(request, "cold_user"))
                    continue
                items = tuple([ScoredItem(*pair) for pair in zip(names, scores, strict=True)])
                lists.append(_List(variant, model, items))
                self._note_scores(slot, request, ranking.first_stage.scores[row])
            shadows = _shadows(model, ranking.items[len(requests) :])
        if self._config.explain and lists and model.reranker is None:
            lists = self._explained(model, requests, lists)
        return _RankedBatch(lists, shadows, ranking.first_stage)

    def _in_pilot(self, pilot: Pilot, request: Request, served: _List, ranked: _RankedBatch, row: int) -> _List:
        """The list that the user's variant of the pilot makes, marked with it; `served` is row `row` of `ranked`."""
        variant = pilot.variant_of(request.user)
        if variant is None:
            return served
        tag = InPilot(pilot.name, variant.name, pilot.stage)
        if variant is AS_SERVED:
            return served._replace(pilot=tag)
        shown, model, lists = served, served.model, variant.lists
        if lists.ranking == "popularity" and model is not None:
            shown = _List("popularity", None, self._popular_items(request))
        elif lists.ranking == "model" and model is not None and model.reranker and ranked.first_stage is not None:
            ids, count, found = model.items.ids, self._config.list_items, ranked.first_stage
            columns, scores = found.columns[row, :count].tolist(), found.scores[row, :count].tolist()
            own = [ScoredItem(ids[column], score) for column, score in zip(columns, scores, strict=True) if column >= 0]
            shown = served._replace(items=tuple(own))
        twin = Twin("" if model is None else model.version, tuple([item.item for item in served.items]))
        return shown._replace(items=shown.items[: lists.list_items], pilot=tag, twin=twin)

    def _explained(self, model: Recommender, requests: Sequence[Request], lists: Sequence[_List]) -> list[_List]:
        """The same lists, with reasons where `model` ranked them."""
        ranked = [one.items if one.model is model else () for one in lists]
        config, event_ms = self._config, self._stages.event_ms(requests)
        explained = with_reasons(model, requests, ranked, config.events, event_ms, config.explain)
        return [one._replace(items=items) if items else one for one, items in zip(lists, explained, strict=True)]

    def _note_scores(self, slot: ServingSlot, request: Request, scores: np.ndarray) -> None:
        """`scores` [K] are those of the first stage, also when a reranker ordered the list: the model's reference
        describes the scores of the first stage."""
        best = float(scores[0])
        self._tally.observe(self._metrics.top_score[slot], best)
        if slot == "live" and request.reason == "event":
            last = scores[: self._config.list_items]
            self._signals.window_signals.ranked(request.newest_ms, best, float(last[last > -np.inf][-1]))

    def _popular(self, request: Request, reason: FallbackReason) -> _List:
        self._metrics.fallback_lists[reason].inc()
        return _List("popularity", None, self._popular_items(request))

    def _popular_items(self, request: Request) -> tuple[ScoredItem, ...]:
        now_ms, event_ms = int(self._clock() * 1000), self._stages.event_ms([request])
        excluded = unlisted(request, self._config.events, event_ms, self._catalogue, now_ms)
        popular = self._popularity.top(excluded, self._config.list_items)
        return tuple(ScoredItem(item, score) for item, score in popular)

    def _encode(self, requests: Iterable[Request], lists: Iterable[_List]) -> list[Answer]:
        published_ms = int(self._clock() * 1000)
        answers = []
        for request, (variant, model, items, pilot, twin) in zip(requests, lists, strict=True):
            recommendation = Recommendation(
                user=request.user.decode(),
                items=items,
                model="" if model is None else model.version,
                variant=variant,
                as_of=request.newest_ms,
                reason=request.reason,
                published=published_ms,
                pilot=pilot,
            )
            made, value = self._journal.made(model, request.digest), _recommendation.encode(recommendation)
            answers.append(Answer(request, variant, model, items, value, made=made, pilot=pilot, twin=twin))
        return answers


_recommendation = msgspec.json.Encoder()


def _shadows(model: Recommender, ranked: Sequence[Sequence[str]]) -> list[Shadow | None]:
    """What `model` would have shown; None for a user for whom it ranked nothing."""
    return [Shadow(model, tuple(items)) if items else None for items in ranked]
