"""A batch of refreshes turned into ranked lists: the scorer's work without Kafka or Faust."""

from __future__ import annotations

import logging
import math
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from model.batch import Histories
from model.errors import NonFiniteScores
from model.recommend import Recommender
from ops.metrics import ScorerMetrics
from state import codec
from state.history import History
from stream.popularity import Popularity
from stream.prequential import ShownList, judge_event, rank_of
from stream.records import NewInteraction, Recommendation, Refresh, RefreshReason, Rejected, ScoredItem
from stream.shown_lists import ShownLists

__all__ = ["Answer", "Models", "Request", "Server", "ServingConfig", "coalesce", "in_treatment"]

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_POPULARITY = "popularity"
_NDCG_RANKS = 10
_MISS_RANK = 51  # at least


@dataclass(frozen=True)
class ServingConfig:
    list_items: int = 20  # length of a recommended list
    popularity_half_life_ms: int = 7 * _DAY_MS  # event time
    shown_ms: int = 30 * _DAY_MS  # a list older than this says nothing about the model

    def __post_init__(self) -> None:
        for name in ("list_items", "popularity_half_life_ms", "shown_ms"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Models:
    """What may score now. Replaced as a whole, so a batch sees one consistent set."""

    live: Recommender | None = None
    previous: Recommender | None = None
    candidate: Recommender | None = None
    candidate_share: float = 0.0  # of the users, by hash

    def slot(self, version: str) -> str:
        """Where a model of this version is now; "retired" when nowhere, "none" for no model."""
        if not version:
            return "none"
        for slot, model in (("live", self.live), ("candidate", self.candidate), ("previous", self.previous)):
            if model is not None and model.version == version:
                return slot
        return "retired"


@dataclass(frozen=True)
class Request:
    """One user's newest refresh, with what earlier ones of the same batch brought."""

    partition: int
    offset: int
    user: bytes
    history: History
    reason: RefreshReason
    new: tuple[NewInteraction, ...] = ()
    arrivals_ms: tuple[int, ...] = ()  # broker's clock of every event refresh that this one answers, oldest first
    forgotten: bool = False  # this batch also forgot the user: nothing shown before it is known any more

    @classmethod
    def decode(cls, partition: int, offset: int, user: bytes | None, value: bytes | None) -> Request:
        """Raises `Rejected`."""
        if user is None or value is None:
            raise Rejected("schema", "a refresh needs a user and a history")
        refresh = Refresh.decode(value)
        try:
            user.decode()
            history = codec.decode(refresh.history)
        except (codec.CodecError, UnicodeDecodeError) as error:
            raise Rejected("schema", str(error)) from None
        arrivals_ms = (refresh.arrived_ms,) if refresh.reason == "event" else ()
        forgotten = refresh.reason == "forget"
        return cls(partition, offset, user, history, refresh.reason, refresh.new, arrivals_ms, forgotten)

    def followed_by(self, later: Request) -> Request:
        """`later`, which holds the whole history, with what is new since the last list and what waits for an answer."""
        if later.reason == "forget" or self.reason == "forget":
            return replace(later, forgotten=True)
        return replace(
            later,
            reason="event" if self.reason == "event" else later.reason,
            new=self.new + later.new,
            arrivals_ms=self.arrivals_ms + later.arrivals_ms,
            forgotten=self.forgotten,
        )


def coalesce(requests: Iterable[Request]) -> list[Request]:
    """One request per user, in order of first appearance."""
    newest: dict[bytes, Request] = {}
    for request in requests:
        before = newest.get(request.user)
        newest[request.user] = request if before is None else before.followed_by(request)
    return list(newest.values())


@dataclass
class Answer:
    """A list on its way to `recommendations`; `value` None is the tombstone of a user who was forgotten."""

    request: Request
    variant: str = "popularity"
    version: str = ""  # of the model, "" for popularity
    items: tuple[ScoredItem, ...] = ()
    value: bytes | None = None


def in_treatment(user: bytes, share: float) -> bool:
    """A stable hash of the user decides: the same answer in every process and run."""
    return zlib.crc32(b"freshet-treatment:" + user) / 2**32 < share


class Server:
    """Not thread-safe except for `models`: one thread calls the methods, another may assign `models`.

    Every batch: `score`, then, once the brokers have its answers, `delivered`.
    """

    def __init__(
        self, config: ServingConfig, lists: ShownLists, metrics: ScorerMetrics, clock: Callable[[], float] = time.time
    ) -> None:
        self.config, self.models = config, Models()
        self.popularity = Popularity(config.popularity_half_life_ms)
        self._lists, self._metrics, self._clock = lists, metrics, clock
        self._load_popularity()

    def score(self, requests: Sequence[Request]) -> list[Answer]:
        """Answers to requests of distinct users, in their order."""
        metrics, models = self._metrics, self.models
        with metrics.scoring["load"].time():
            shown = self._lists.get((request.partition, request.user) for request in requests)
        metrics.scoring_batch_users.observe(len(requests))
        for request, before in zip(requests, shown, strict=True):
            self._judge(request, None if request.forgotten else before, models)
        self.popularity.refresh()
        answers = [Answer(request) for request in requests]
        self._rank([answer for answer in answers if answer.request.reason != "forget"], models)
        self._encode(answers)
        return answers

    def delivered(self, answers: Iterable[Answer]) -> None:
        """The brokers have these: from now on they are what their users see."""
        now = self._clock()
        shown: dict[bytes, ShownList | None] = {}
        for answer in answers:
            request = answer.request
            for arrived_ms in request.arrivals_ms:
                self._metrics.event_to_recommendation.observe(max(now - arrived_ms / 1000, 0))
            if answer.value is None:
                shown[request.user] = None
                continue
            self._metrics.recommendations_published[answer.variant].inc()
            names = tuple(item.item for item in answer.items)
            shown[request.user] = ShownList(int(now * 1000), request.offset, answer.variant, answer.version, names)
        self._lists.put(shown)

    # -- quality: before the event changes anything --------------------------------------------------------------------

    def _judge(self, request: Request, shown: ShownList | None, models: Models) -> None:
        if not request.new:
            return
        metrics, live = self._metrics, models.live
        variant = "popularity" if shown is None else shown.variant
        slot = models.slot("" if shown is None else shown.version)
        judged_by = models.candidate if slot == "candidate" else live
        vocabulary = None if slot == "none" or judged_by is None else judged_by.items
        fresh = {event.item for event in request.new if not event.repeat}
        known = set(request.history.items) - fresh
        arrived_ms = request.arrivals_ms[-1] if request.arrivals_ms else 0
        popular: list[str] | None = None
        for event in request.new:
            if live is not None:
                metrics.item_events["in_vocabulary" if event.item in live.items else "out_of_vocabulary"].inc()
            judgement = judge_event(event, shown, arrived_ms, vocabulary, arrived_ms - self.config.shown_ms)
            metrics.prequential_events[variant, judgement.outcome].inc()
            if not judgement.rank:
                continue
            self._observe(variant, slot, judgement.rank, judgement.outcome == "hit")
            if variant != "popularity":
                if popular is None:
                    popular = [item for item, _ in self.popularity.top(known, self.config.list_items)]
                rank = rank_of(event.item, popular)
                hit = rank <= len(popular)
                metrics.prequential_events["popularity", "hit" if hit else "miss"].inc()
                self._observe("popularity", slot, rank, hit)
        self.popularity.add_all((event.item, event.time_ms) for event in request.new)

    def _observe(self, variant: str, slot: str, rank: int, hit: bool) -> None:
        # A miss goes past every bucket: one past a short list would look like a good rank.
        self._metrics.prequential_rank[variant, slot].observe(rank if hit else max(rank, _MISS_RANK))
        if hit and rank <= _NDCG_RANKS:
            self._metrics.prequential_ndcg[variant, slot].inc(1 / math.log2(1 + rank))

    # -- ranking -------------------------------------------------------------------------------------------------------

    def _rank(self, wanted: list[Answer], models: Models) -> None:
        share = models.candidate_share if models.candidate is not None else 0.0
        treated = [answer for answer in wanted if share and in_treatment(answer.request.user, share)]
        others = [answer for answer in wanted if not (share and in_treatment(answer.request.user, share))]
        failed = self._rank_with(models.candidate, "candidate", "treatment", treated)
        failed = self._rank_with(models.live, "live", "control", others + failed)
        failed = self._rank_with(models.previous, "previous", "control", failed)
        for answer in failed:
            self._fall_back(answer, "no_model" if models.live is None and models.previous is None else "error")

    def _rank_with(self, model: Recommender | None, slot: str, variant: str, users: list[Answer]) -> list[Answer]:
        """Rank with one model; returns the users it could not rank because it is missing or unsound."""
        if model is None or not users:
            return users
        users_histories = (answer.request.history for answer in users)
        histories = Histories.pack(model.items, ((h.items, h.times_ms, h.strengths) for h in users_histories))
        try:
            with self._metrics.scoring["forward"].time():
                ranked = model.rank(histories, self.config.list_items)
        except NonFiniteScores as error:
            log.error("%s; nothing of it is published", error)
            self._metrics.nonfinite_scores[slot].inc()
            return users
        except Exception as error:  # whatever it is, another model or popularity can answer
            log.exception("model %s failed on %d users", model.version, len(users))
            self._metrics.scoring_failures["oom" if "out of memory" in str(error) else "model"].inc()
            return users
        with self._metrics.scoring["topk"].time():
            ids, top_score = model.items.ids, self._metrics.top_score[slot]
            rows = zip(users, histories.lengths.tolist(), ranked.columns.tolist(), ranked.scores.tolist(), strict=True)
            for answer, known, columns, scores in rows:
                if known == 0:
                    self._fall_back(answer, "cold_user")
                    continue
                answer.variant, answer.version = variant, model.version
                # Rows end in column -1 when fewer items are left.
                answer.items = tuple(
                    [ScoredItem(ids[c], score) for c, score in zip(columns, scores, strict=True) if c >= 0]
                )
                if answer.items:
                    top_score.observe(answer.items[0].score)
        return []

    def _fall_back(self, answer: Answer, reason: str) -> None:
        self._metrics.fallback_lists[reason].inc()
        popular = self.popularity.top(set(answer.request.history.items), self.config.list_items)
        answer.items = tuple(ScoredItem(item, score) for item, score in popular)

    def _encode(self, answers: Iterable[Answer]) -> None:
        published_ms = int(self._clock() * 1000)
        for answer in answers:
            request = answer.request
            if request.reason != "forget":
                recommendation = Recommendation(
                    user=request.user.decode(),
                    items=answer.items,
                    model=answer.version,
                    variant=answer.variant,
                    as_of=request.history.newest_ms,
                    reason=request.reason,
                    published=published_ms,
                )
                answer.value = _recommendation.encode(recommendation)

    # -- what survives a restart ---------------------------------------------------------------------------------------

    def save_popularity(self) -> None:
        self._lists.keep(_POPULARITY, self.popularity.dump())

    def _load_popularity(self) -> None:
        dumped = self._lists.kept(_POPULARITY)
        if dumped is not None:
            try:
                self.popularity.load(dumped)
            except msgspec.DecodeError as error:
                log.warning("popularity starts afresh: %s", error)


_recommendation = msgspec.json.Encoder()
