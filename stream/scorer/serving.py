"""A batch of refreshes turned into ranked lists: the scorer's work without Kafka or Faust."""

from __future__ import annotations

import logging
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import msgspec

from model.batch import Histories
from model.errors import NonFiniteScores
from model.recommend import Ranked, Recommender
from ops.metrics import ScorerMetrics, Tally
from state import codec
from stream.registry.reference import Reference
from stream.scorer.list_signals import ScorerWatch, ScorerWatchConfig
from stream.scorer.popularity import Popularity
from stream.scorer.prequential import ShownList, judge_event, rank_of
from stream.scorer.shown_lists import ShownLists
from stream.wire.records import NewInteraction, Recommendation, Refresh, RefreshReason, Rejected, ScoredItem

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
    watch: ScorerWatchConfig = field(default_factory=ScorerWatchConfig)

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
    reference: Reference | None = None  # what the live model was fitted on looked like

    def slot(self, version: str) -> str:
        """Where a model of this version is now; "retired" when nowhere, "none" for no model."""
        return self._slots.get(version, "retired")

    @cached_property
    def _slots(self) -> dict[str, str]:
        placed = (("previous", self.previous), ("candidate", self.candidate), ("live", self.live))
        return {model.version: slot for slot, model in placed if model is not None} | {"": "none"}


@dataclass(frozen=True)
class Request:
    """One user's newest refresh, with what earlier ones of the same batch brought."""

    partition: int
    offset: int
    user: bytes
    history: codec.Columns
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
            history = codec.read(refresh.history)
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
    model: Recommender | None = None
    experiment: str = ""  # version of the candidate in whose experiment the user was counted
    # What another model would have shown: the previous one, or live to a user of the candidate.
    shadow: tuple[str, ...] = ()
    shadow_model: Recommender | None = None


def in_treatment(user: bytes, share: float) -> bool:
    """A stable hash of the user decides: the same answer in every process and run."""
    return zlib.crc32(b"freshet-treatment:" + user) / 2**32 < share


def _is_treated(request: Request, share: float) -> bool:
    return share > 0 and request.reason != "forget" and in_treatment(request.user, share)


class Server:
    """Not thread-safe except for `models`: one thread calls the methods, another may assign `models`.

    Every batch: `score`; `treat` what that left to the candidate, while the other answers are on their way; `shadow`
    and `delivered` once the brokers have all.
    """

    def __init__(
        self, config: ServingConfig, lists: ShownLists, metrics: ScorerMetrics, clock: Callable[[], float] = time.time
    ) -> None:
        self.config, self.models = config, Models()
        self.popularity = Popularity(config.popularity_half_life_ms)
        self._tally = Tally()  # of the batch at hand
        self.watch = ScorerWatch(config.watch, metrics, self._tally)
        self._followed = self.models
        self._lists, self._metrics, self._clock = lists, metrics, clock
        self._load_popularity()

    def score(self, requests: Sequence[Request]) -> tuple[list[Answer], list[Answer]]:
        """Answers to requests of distinct users, and those that `treat` shall make ready."""
        metrics, models = self._metrics, self.models
        if models is not self._followed:
            self._followed = models
            share = models.candidate_share
            self.watch.follow(models.live, models.candidate, models.previous, share, models.reference)
        metrics.scoring_batch_users.observe(len(requests))
        judged = self.watch.judged([request for request in requests if request.new], self._clock())
        with metrics.scoring["load"].time():
            # An experiment counts its users by what their last lists say, so then all of those are needed.
            shown = self._shown(judged if models.candidate is None else requests)
        for request in requests:
            self._count(request, models.live)
        for request in judged:
            self._judge(request, None if request.forgotten else shown[request.user], models)
        self.popularity.refresh()
        answers = [Answer(request) for request in requests]
        for answer in answers:
            before = shown.get(answer.request.user)
            answer.experiment = "" if before is None else before.experiment
        share = models.candidate_share if models.candidate is not None else 0.0
        others: list[Answer] = []
        treated: list[Answer] = []
        for answer in answers:
            (treated if _is_treated(answer.request, share) else others).append(answer)
        self._rank([answer for answer in others if answer.request.reason != "forget"], models, treated)
        self._encode(others)
        self._tally.flush()
        return others, treated

    def treat(self, treated: Sequence[Answer]) -> None:
        """Let the candidate of the last `score` answer its users.

        A model asked of few costs nearly as much as one asked of many, and the many need not wait for it."""
        models = self._followed
        failed = self._rank_with(models.candidate, "candidate", "treatment", treated)
        for answer in treated:
            if answer.model is None:  # no list of the candidate's for live to be compared with
                answer.shadow, answer.shadow_model = (), None
        self._rank(failed, models)
        self._encode(treated)
        self._tally.flush()

    def shadow(self, answers: Sequence[Answer]) -> None:
        """Ask the previous model what it would have shown to some users of live.

        No list waits for it: what it finds is kept with the list, for the user's next event."""
        live, previous = self._followed.live, self._followed.previous
        if live is None or previous is None or previous.version == live.version:
            return
        served = [answer for answer in answers if answer.model is live]
        users = self.watch.shadowed(served, self._clock())
        if not users:
            return
        try:
            known, ranked = self._ask(previous, users)
        except Exception as error:  # nothing hangs on it
            log.warning("model %s did not answer beside the one that serves: %s", previous.version, error)
            return
        _cast_shadows(previous, users, known, ranked.columns.tolist())

    def delivered(self, answers: Iterable[Answer], seen: Mapping[int, tuple[int, int]]) -> None:
        """The brokers have these: from now on they are what their users see. `seen`: `ShownLists.spans` at `score`."""
        now, watch = self._clock(), self.watch
        shown: dict[bytes, ShownList | None] = {}
        keep = self.config.watch.judged_per_second > 0 or self._followed.candidate is not None
        for answer in answers:
            request = answer.request
            for arrived_ms in request.arrivals_ms:
                seconds = max(now - arrived_ms / 1000, 0)
                self._tally.observe(self._metrics.event_to_recommendation, seconds)
                watch.signals.delivered(request.history.newest_ms, seconds)
            if answer.value is None:
                shown[request.user] = None
                continue
            self._tally.inc(self._metrics.recommendations_published[answer.variant])
            names = tuple(item.item for item in answer.items)
            seen_ms = request.history.newest_ms
            watch.published(request.user, seen_ms, answer.variant, names, answer.model)
            shadow_version = "" if answer.shadow_model is None else answer.shadow_model.version
            if shadow_version and answer.variant == "control":
                watch.published(request.user, seen_ms, "previous_shadow", answer.shadow, answer.shadow_model)
            if keep:
                self._count_in(answer)
                shown[request.user] = ShownList(
                    int(now * 1000),
                    request.offset,
                    answer.variant,
                    answer.version,
                    names,
                    shadow_version,
                    answer.shadow,
                    answer.experiment,
                )
        self._tally.flush()
        self._lists.put(shown, seen)

    def _count_in(self, answer: Answer) -> None:
        """Each user once per experiment, when the first list of it is out."""
        candidate = self._followed.candidate
        if candidate is None or answer.experiment == candidate.version or answer.variant == "popularity":
            return
        answer.experiment = candidate.version
        self._metrics.experiment_users[answer.variant].inc()

    # -- quality: before the event changes anything --------------------------------------------------------------------

    def _shown(self, requests: Sequence[Request]) -> dict[bytes, ShownList | None]:
        lists = self._lists.get((request.partition, request.user) for request in requests)
        return {request.user: shown for request, shown in zip(requests, lists, strict=True)}

    def _count(self, request: Request, live: Recommender | None) -> None:
        for event in request.new:
            if live is not None:
                in_vocabulary = event.item in live.items
                first_met = not in_vocabulary and event.item not in self.popularity
                self.watch.event(event.item, event.time_ms, in_vocabulary, first_met)
            self.popularity.add(event.item, event.time_ms)

    def _judge(self, request: Request, shown: ShownList | None, models: Models) -> None:
        live, arrived_ms = models.live, request.arrivals_ms[-1] if request.arrivals_ms else 0
        variant = "popularity" if shown is None else shown.variant
        slot = models.slot("" if shown is None else shown.version)
        judged_by = models.candidate if slot == "candidate" else live
        vocabulary = None if slot == "none" or judged_by is None else judged_by.items
        masked: set[str] | None = None
        for event in request.new:
            judgement = judge_event(event, shown, arrived_ms, vocabulary, arrived_ms - self.config.shown_ms)
            self._tally.inc(self._metrics.prequential_events[variant, judgement.outcome])
            if not judgement.rank or shown is None:
                continue
            rank = _miss_past_every_bucket(judgement.rank, judgement.outcome == "hit")
            self._observe(variant, slot, rank)
            if variant == "popularity":
                continue
            if masked is None:  # what the list shown could not hold: the history before these events
                masked = set(request.history.items) - {event.item for event in request.new if not event.repeat}
            length = self.config.list_items
            popular_rank = self._paired("popularity", slot, self.popularity.rank(event.item, masked, length), length)
            shadow_slot = models.slot(shown.shadow_version)
            if variant == "control" and slot == "live":
                previous = None
                if shadow_slot == "previous":
                    length = len(shown.shadow)
                    previous = self._paired("previous_shadow", "previous", rank_of(event.item, shown.shadow), length)
                self.watch.control(request.user, event.time_ms, rank, popular_rank, previous)
            elif variant == "treatment" and slot == "candidate":
                stood_in = None if shadow_slot != "live" else _rank_or_miss(event.item, shown.shadow)
                self.watch.treatment(request.user, event.time_ms, shown.version, rank, stood_in)

    def _paired(self, variant: str, slot: str, rank: int, length: int) -> int:
        """What a list of `length` items that was not shown says to the same event."""
        hit = rank <= length
        self._tally.inc(self._metrics.prequential_events[variant, "hit" if hit else "miss"])
        rank = _miss_past_every_bucket(rank, hit)
        self._observe(variant, slot, rank)
        return rank

    def _observe(self, variant: str, slot: str, rank: int) -> None:
        self._tally.observe(self._metrics.prequential_rank[variant, slot], rank)
        if rank <= _NDCG_RANKS:
            self._tally.inc(self._metrics.prequential_ndcg[variant, slot], 1 / math.log2(1 + rank))

    # -- ranking -------------------------------------------------------------------------------------------------------

    def _rank(self, users: Sequence[Answer], models: Models, compared: Sequence[Answer] = ()) -> None:
        """With the first sound model there is. Live ranks those `compared` too: among the others they cost little,
        alone a whole call."""
        failed = self._rank_with(models.live, "live", "control", users, compared)
        failed = self._rank_with(models.previous, "previous", "control", failed)
        for answer in failed:
            self._fall_back(answer, "no_model" if models.live is None and models.previous is None else "error")

    def _rank_with(
        self,
        model: Recommender | None,
        slot: str,
        variant: str,
        users: Sequence[Answer],
        compared: Sequence[Answer] = (),
    ) -> Sequence[Answer]:
        """Rank with one model; returns the users it could not rank because it is missing or unsound. Those `compared`
        get another model's list: this one only casts a shadow on it."""
        if model is None or not (users or compared):
            return users
        asked = [*users, *compared]
        try:
            with self._metrics.scoring["forward"].time():
                known, ranked = self._ask(model, asked)
        except NonFiniteScores as error:
            log.error("%s; nothing of it is published", error)
            self._metrics.nonfinite_scores[slot].inc()
            if slot == "live":
                self.watch.signals.nonfinite(max(answer.request.history.newest_ms for answer in asked), len(asked))
            return users
        except Exception as error:  # whatever it is, another model or popularity can answer
            log.exception("model %s failed on %d users", model.version, len(asked))
            self._metrics.scoring_failures["oom" if "out of memory" in str(error) else "model"].inc()
            return users
        with self._metrics.scoring["topk"].time():
            ids, top_score = model.items.ids, self._metrics.top_score[slot]
            columns_of, scores_of = ranked.columns.tolist(), ranked.scores.tolist()
            # The rows of `compared` come after those of `users`.
            for answer, length, columns, scores in zip(users, known, columns_of, scores_of, strict=False):
                if length == 0:
                    self._fall_back(answer, "cold_user")
                    continue
                answer.variant, answer.version, answer.model = variant, model.version, model
                # Rows end in column -1 when fewer items are left.
                answer.items = tuple(
                    [ScoredItem(ids[c], score) for c, score in zip(columns, scores, strict=True) if c >= 0]
                )
                if not answer.items:
                    continue
                best, last = answer.items[0].score, answer.items[-1].score
                self._tally.observe(top_score, best)
                if slot == "live" and answer.request.reason == "event":
                    self.watch.signals.ranked(answer.request.history.newest_ms, best, last)
            _cast_shadows(model, compared, known[len(users) :], columns_of[len(users) :])
        return []

    def _ask(self, model: Recommender, users: Sequence[Answer]) -> tuple[list[int], Ranked]:
        """(How many items of each user's history the model knows, the lists)."""
        columns = (answer.request.history for answer in users)
        histories = Histories.pack_bytes(model.items, ((c.items, c.times_ms, c.strengths) for c in columns))
        return histories.lengths.tolist(), model.rank(histories, self.config.list_items)

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


def _cast_shadows(
    model: Recommender, users: Sequence[Answer], known: Sequence[int], ranked: Sequence[Sequence[int]]
) -> None:
    """Keep with each user's list what `model` ranked: columns by user, of whose items it knows so many."""
    ids = model.items.ids
    for answer, length, columns in zip(users, known, ranked, strict=True):
        if length:
            answer.shadow_model, answer.shadow = model, tuple([ids[column] for column in columns if column >= 0])


def _rank_or_miss(item: str, items: Sequence[str]) -> int:
    rank = rank_of(item, items)
    return _miss_past_every_bucket(rank, rank <= len(items))


def _miss_past_every_bucket(rank: int, hit: bool) -> int:
    """One past a short list would look like a good rank."""
    return rank if hit else max(rank, _MISS_RANK)
