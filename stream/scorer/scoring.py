"""Turns a batch of refreshes into lists: all the work of the scoring thread, without Kafka or Faust."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from model.recommend import Recommender
from model.rerank.counts import StreamCounts
from ops.metrics import ScorerMetrics, Tally
from state.popularity import Popularity
from stream.scorer.config import ListConfig, settings_digest
from stream.scorer.counting import count_event
from stream.scorer.journal import Journal, NoJournal
from stream.scorer.judge import Judge
from stream.scorer.list_maker import Answer, CanaryUser, ListMaker
from stream.scorer.list_signals import ListSignals
from stream.scorer.models import Models
from stream.scorer.pilot_lists import PilotLists
from stream.scorer.prequential import ShownList
from stream.scorer.requests import Request
from stream.scorer.shown_lists import LastList, Offsets, ShownLists
from stream.scorer.two_stages import TwoStages
from stream.wire.catalogue import Catalogue
from stream.wire.history_version import HistoryVersion

__all__ = ["Scored", "Scoring"]

log = logging.getLogger(__name__)


class Scored(NamedTuple):
    """What `Scoring.score` made of a batch."""

    answers: list[Answer]
    canary_users: list[CanaryUser]  # the canary answers these in `answer_canary`
    before: Mapping[bytes, ShownList]  # last lists by user; empty when there is neither a canary nor a pilot


class Scoring:
    """Not thread-safe except for `models`: one thread calls the methods, another may assign `models`.

    Calls for every batch, in order: `score`; `answer_canary`, while the answers of `score` are on their way;
    `delivered`, once the brokers have all lists. The next batch may be scored before `delivered`.
    """

    def __init__(
        self,
        config: ListConfig,
        lists: ShownLists,
        metrics: ScorerMetrics,
        clock: Callable[[], float] = time.time,
        saved_popularity: bytes | None = None,
        saved_counts: StreamCounts | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.config, self.models = config, Models()
        self.popularity = Popularity(config.popularity_half_life_ms)
        self._tally = Tally()  # of the current batch
        self.signals = ListSignals(config.signals, metrics, self._tally)
        pilots = PilotLists(self.signals.window_signals.windows.worker)
        self._judge = Judge(config, self.popularity, metrics, self._tally, self.signals, pilots)
        self.catalogue = Catalogue(config.items)
        self.stages = TwoStages(config, self.popularity, self.catalogue, clock, saved_counts)
        self.journal = journal or NoJournal(settings_digest(config))
        self._maker = ListMaker(
            *(config, self.popularity, self.catalogue, metrics, self._tally, self.signals, self.stages),
            pilots,
            clock=clock,
            journal=self.journal,
        )
        self._batch_models = self.models  # what the current batch is scored with
        self._lists, self._metrics, self._clock = lists, metrics, clock
        self._undelivered: dict[bytes, HistoryVersion] = {}  # by user: of the list that is on its way
        if saved_popularity is not None:
            try:
                self.popularity.load(saved_popularity)
            except msgspec.DecodeError as error:
                log.warning("popularity starts from nothing: %s", error)

    @property
    def pilots(self) -> PilotLists:
        """Any thread may assign another pilot to `pilots.current`."""
        return self._judge.pilots

    @property
    def waits_for(self) -> str:
        """What is missing before lists can be made; empty when nothing is. Safe from any thread."""
        answers = self.models.live is not None or len(self.popularity) > 0
        return "" if answers else "no model is live and no event has made anything popular yet"

    def score(self, requests: Sequence[Request], taken: Sequence[tuple[int, int]] = ()) -> Scored:
        """Judge the last lists of these distinct users by their new events, then make their next lists. `taken` gives
        the (partition, offset) of every refresh behind these requests, in order, for the journal."""
        models, added = self.models, list[str]()
        self.journal.turn(self.popularity, self.stages.second_stage.events.counts)
        if models is not self._batch_models:
            self._batch_models = models
            self.signals.follow(models)
            added = self.stages.second_stage.follow((models.live, models.previous, models.canary))
        with self._metrics.scoring["load"].time():
            last = self._lists.get((request.partition, request.user) for request in requests)
            asked, requests = requests, self._not_older(requests, last)
        self._metrics.scoring_batch_users.observe(len(requests))
        for request in requests:
            self._count(request, models.live)
        for request in self.signals.to_judge([request for request in requests if request.new], self._clock()):
            known = None if request.forgotten else last.get(request.user)
            self._judge.judge(request, None if known is None else known.shown, models)
        self.popularity.refresh()
        self.stages.count(requests)
        stale, items, event_ms = _left_out(asked, requests), self.catalogue.next_offset, self.popularity.newest_ms
        self.journal.write(taken, stale, added, models, items, event_ms)
        answers, canary_users = self._maker.make(requests, models)
        self._tally.flush()
        # A user's last list says whether the user was counted already.
        counted = models.canary is not None or self.pilots.current is not None
        before = {user: found for user, known in last.items() if (found := known.shown)} if counted else {}
        return Scored(answers, canary_users, before)

    def _not_older(self, requests: Sequence[Request], last: Mapping[bytes, LastList]) -> list[Request]:
        """Leave out requests whose history has an older version than that of the user's last list: an updater that had
        lost the partition sent them. A request with the same version is answered, because its history may still differ
        in ways that the version does not show."""
        kept = []
        for request in requests:
            user, known = request.user, last.get(request.user)
            version = self._undelivered.get(user) or (None if known is None else known.version)
            if version is not None and request.version < version:
                self._metrics.stale_refreshes.inc()
                continue
            self._undelivered[user] = request.version
            kept.append(request)
        return kept

    def saved_popularity(self) -> bytes:
        """The popularity that the next process begins with."""
        self.journal.retaken = True
        return self.popularity.dump()

    def answer_canary(self, canary_users: Sequence[CanaryUser]) -> list[Answer]:
        """Let the canary of the last `score` answer its users."""
        answers = self._maker.answer_canary(canary_users, self._batch_models)
        self._tally.flush()
        return answers

    def delivered(self, answers: Sequence[Answer], before: Mapping[bytes, ShownList], offsets: Offsets) -> list[Answer]:
        """The brokers have these lists: from now on they are what the users see. Returns them, some with the list that
        the previous model would have shown. `before`: see `Scored`."""
        now, published = self._clock(), self._metrics.recommendations_published
        answers = self._maker.with_shadows(answers, self._batch_models)
        live = self._batch_models.live
        if live is None or live.reranker is None:
            known = [answer.request for answer in answers if answer.model is live and answer.value is not None]
            self.stages.keep_examples(live, known)
        shown: dict[int, dict[bytes, LastList]] = {number: {} for number in offsets.ranges}
        for answer in answers:
            request = answer.request
            user, encoded = request.user, b""
            self._note_latency(request, now)
            if answer.value is not None:
                self._tally.inc(published[answer.variant])
                encoded = self._shown(answer, int(now * 1000), before.get(user)).encode()
            if self._undelivered.get(user) == request.version:
                del self._undelivered[user]
            shown[request.partition][user] = LastList(request.version, offsets.of_users[user], encoded)
        self._tally.flush()
        for number, ranges in offsets.ranges.items():
            lists = self._lists[number]
            if lists is not None:  # else the partition has just moved away
                lists.put(shown[number], ranges, int(now * 1000))
        return answers

    def _shown(self, answer: Answer, now_ms: int, before: ShownList | None) -> ShownList:
        names = tuple([item.item for item in answer.items])
        version, shadow = ("", ()) if answer.shadow is None else (answer.shadow.model.version, answer.shadow.items)
        if answer.pilot is not None:
            self.pilots.shown(answer.pilot, None if before is None else before.pilot)
        if answer.twin is not None:
            version, shadow = answer.twin
        else:
            user, newest_ms = answer.request.user, answer.request.newest_ms
            self.signals.published(user, newest_ms, answer.variant, names, answer.model)
            if answer.shadow is not None and answer.variant == "control":
                self.signals.published(user, newest_ms, "previous_shadow", answer.shadow.items, answer.shadow.model)
        return ShownList(
            now_ms,
            answer.variant,
            answer.version,
            names,
            tuple([item.score for item in answer.items]),
            version,
            shadow,
            self._counted_for(answer, "" if before is None else before.counted_for),
            answer.made,
            answer.pilot,
        )

    def _note_latency(self, request: Request, now: float) -> None:
        for arrived_ms in request.arrivals_ms:
            seconds = max(now - arrived_ms / 1000, 0)
            self._tally.observe(self._metrics.event_to_recommendation, seconds)
            self.signals.window_signals.delivered(request.newest_ms, seconds)

    def _counted_for(self, answer: Answer, counted: str) -> str:
        """Count each user once per canary, when the user's first list since the canary's announcement is delivered.
        Returns the version of the canary for which the user is counted now."""
        canary = self._batch_models.canary
        if canary is None or counted == canary.version or answer.variant == "popularity":
            return counted
        self._metrics.canary_users[answer.variant].inc()
        return canary.version

    def _count(self, request: Request, live: Recommender | None) -> None:
        """Count the request's events towards drift detection and popularity."""
        for event in request.new:
            if live is not None:
                in_vocabulary = event.item in live.items
                first_met = not in_vocabulary and event.item not in self.popularity
                self.signals.event(event.item, event.time_ms, in_vocabulary, first_met)
            count_event(event, self.config.events, self.popularity)


def _left_out(asked: Sequence[Request], kept: Sequence[Request]) -> list[int]:
    """Places of the requests that were not kept. Both sequences have the same order."""
    if len(asked) == len(kept):
        return []
    users = {request.user for request in kept}  # distinct
    return [place for place, request in enumerate(asked) if request.user not in users]
