"""A batch of refreshes turned into lists: all the work of the scoring thread, without Kafka or Faust."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from model.recommend import Recommender
from ops.metrics import ScorerMetrics, Tally
from state.popularity import Popularity
from stream.scorer.catalogue import Catalogue
from stream.scorer.config import ListConfig
from stream.scorer.judge import Judge
from stream.scorer.list_maker import Answer, CanaryUser, ListMaker
from stream.scorer.list_signals import ListSignals
from stream.scorer.models import Models
from stream.scorer.prequential import ShownList
from stream.scorer.requests import Request
from stream.scorer.shown_lists import ShownLists

__all__ = ["Scored", "Scoring"]

log = logging.getLogger(__name__)

_POPULARITY = "popularity"


class Scored(NamedTuple):
    """What `Scoring.score` made of a batch."""

    answers: list[Answer]
    canary_users: list[CanaryUser]  # the canary answers these in `answer_canary`
    counted_for: Mapping[bytes, str]  # by user: version of the canary for which the user was counted already


class Scoring:
    """Not thread-safe except for `models`: one thread calls the methods, another may assign `models`.

    Every batch: `score`; `answer_canary`, while the answers of `score` are on their way; `with_shadows` and `delivered`
    once the brokers have all lists.
    """

    def __init__(
        self, config: ListConfig, lists: ShownLists, metrics: ScorerMetrics, clock: Callable[[], float] = time.time
    ) -> None:
        self.config, self.models = config, Models()
        self.popularity = Popularity(config.popularity_half_life_ms)
        self._tally = Tally()  # of the batch at hand
        self.signals = ListSignals(config.signals, metrics, self._tally)
        self._judge = Judge(config, self.popularity, metrics, self._tally, self.signals)
        self.catalogue = Catalogue(config.items)
        self._maker = ListMaker(config, self.popularity, self.catalogue, metrics, self._tally, self.signals, clock)
        self._batch_models = self.models  # what the batch at hand is scored with
        self._lists, self._metrics, self._clock = lists, metrics, clock
        self._load_popularity()

    def score(self, requests: Sequence[Request]) -> Scored:
        """Judge the last lists of these distinct users by their new events, then make their next lists."""
        models = self.models
        if models is not self._batch_models:
            self._batch_models = models
            self.signals.follow(models)
        self._metrics.scoring_batch_users.observe(len(requests))
        judged = self.signals.to_judge([request for request in requests if request.new], self._clock())
        with self._metrics.scoring["load"].time():
            # With a canary, users are counted by what their last lists say: then all of those are needed.
            shown = self._shown(judged if models.canary is None else requests)
        for request in requests:
            self._count(request, models.live)
        for request in judged:
            self._judge.judge(request, None if request.forgotten else shown[request.user], models)
        self.popularity.refresh()
        answers, canary_users = self._maker.make(requests, models)
        self._tally.flush()
        return Scored(answers, canary_users, {user: before.counted_for for user, before in shown.items() if before})

    def answer_canary(self, canary_users: Sequence[CanaryUser]) -> list[Answer]:
        """Let the canary of the last `score` answer its users."""
        answers = self._maker.answer_canary(canary_users, self._batch_models)
        self._tally.flush()
        return answers

    def with_shadows(self, answers: Sequence[Answer]) -> list[Answer]:
        """The answers of the last `score`, some with what the previous model would have shown."""
        return self._maker.with_shadows(answers, self._batch_models)

    def delivered(
        self, answers: Iterable[Answer], counted_for: Mapping[bytes, str], seen: Mapping[int, tuple[int, int]]
    ) -> None:
        """The brokers have these lists: from now on they are what their users see. `seen`: `ShownLists.spans` at
        `score`."""
        now, published = self._clock(), self._metrics.recommendations_published
        shown: dict[bytes, ShownList | None] = {}
        keep = self.config.signals.judged_per_second > 0 or self._batch_models.canary is not None
        for answer in answers:
            user = answer.request.user
            self._note_latency(answer.request, now)
            if answer.value is None:
                shown[user] = None
                continue
            self._tally.inc(published[answer.variant])
            names = tuple(item.item for item in answer.items)
            self._note_list(answer, names)
            if keep:
                counted = self._counted_for(answer, counted_for.get(user, ""))
                version, shadow = ("", ()) if answer.shadow is None else (answer.shadow[0].version, answer.shadow[1])
                shown[user] = ShownList(
                    int(now * 1000),
                    answer.request.offset,
                    answer.variant,
                    answer.version,
                    names,
                    version,
                    shadow,
                    counted,
                    answer.request.partition,
                    tuple(item.score for item in answer.items),
                    answer.request.history.newest_ms,
                )
        self._tally.flush()
        self._lists.put(shown, seen)

    def _note_latency(self, request: Request, now: float) -> None:
        for arrived_ms in request.arrivals_ms:
            seconds = max(now - arrived_ms / 1000, 0)
            self._tally.observe(self._metrics.event_to_recommendation, seconds)
            self.signals.window_signals.delivered(request.history.newest_ms, seconds)

    def _note_list(self, answer: Answer, names: Sequence[str]) -> None:
        user, newest_ms = answer.request.user, answer.request.history.newest_ms
        self.signals.published(user, newest_ms, answer.variant, names, answer.model)
        if answer.shadow is not None and answer.variant == "control":
            self.signals.published(user, newest_ms, "previous_shadow", answer.shadow.items, answer.shadow.model)

    def _counted_for(self, answer: Answer, counted: str) -> str:
        """Count each user once per canary, when the first list since its announcement is out. Returns the version of
        the canary for which the user is counted now."""
        canary = self._batch_models.canary
        if canary is None or counted == canary.version or answer.variant == "popularity":
            return counted
        self._metrics.canary_users[answer.variant].inc()
        return canary.version

    def _shown(self, requests: Sequence[Request]) -> dict[bytes, ShownList | None]:
        lists = self._lists.get((request.partition, request.user) for request in requests)
        return {request.user: shown for request, shown in zip(requests, lists, strict=True)}

    def _count(self, request: Request, live: Recommender | None) -> None:
        """Count the request's events towards drift detection and popularity."""
        for event in request.new:
            if live is not None:
                in_vocabulary = event.item in live.items
                first_met = not in_vocabulary and event.item not in self.popularity
                self.signals.event(event.item, event.time_ms, in_vocabulary, first_met)
            kinds = self.config.events
            if kinds.positive(event.kind, event.weight):
                self.popularity.add(event.item, event.time_ms, kinds[event.kind].strength)

    # -- what survives a restart ---------------------------------------------------------------------------------------

    def save_popularity(self) -> None:
        self._lists.keep(_POPULARITY, self.popularity.dump())

    def _load_popularity(self) -> None:
        dumped = self._lists.kept(_POPULARITY)
        if dumped is not None:
            try:
                self.popularity.load(dumped)
            except msgspec.DecodeError as error:
                log.warning("popularity starts from nothing: %s", error)
