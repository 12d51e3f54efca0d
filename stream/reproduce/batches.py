"""Makes batches of a scorer again: events are counted again from the last anchor, then the scorer's code makes lists.

A list is made in the same batch as before, because the last digits of a score depend on the number of users that are
ranked together. Events are not counted again if no wanted list needs counts: a model's own order needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from kafka.consumer.fetcher import ConsumerRecord
from prometheus_client import CollectorRegistry

from model.rerank.counts import StreamCounts
from ops.metrics import ScorerMetrics, Tally
from state import codec
from state.popularity import Popularity
from stream.reproduce.items_then import ItemLog
from stream.reproduce.models_then import ModelsThen, NoModel
from stream.reproduce.refreshes_then import Position, RefreshesGone, RefreshesThen
from stream.reproduce.tapes import Segment
from stream.scorer.config import ListConfig
from stream.scorer.counting import count_batch
from stream.scorer.journal import Batch, JournalError, ServedBy, read_anchor
from stream.scorer.list_maker import Answer, ListMaker
from stream.scorer.list_signals import ListSignals
from stream.scorer.models import Models
from stream.scorer.pilot_lists import PilotLists
from stream.scorer.requests import Request, coalesce
from stream.scorer.two_stages import TwoStages
from stream.wire.catalogue import Catalogue
from stream.wire.made import history_digest
from stream.wire.records import Rejected

__all__ = ["Bench", "Maker", "Remade", "Wanted", "remake_batches"]

_CHUNK = 2_000  # refreshes read at once
_NO_MODELS: tuple[ServedBy | None, ServedBy | None, ServedBy | None] = (None, None, None)


@dataclass(frozen=True)
class Bench:
    """Everything that is needed to make any batch again."""

    lists: ListConfig
    models: ModelsThen
    items: ItemLog
    refreshes: RefreshesThen


class Wanted(NamedTuple):
    """Users of one batch whose lists are wanted, with their histories from the log; None: the refresh's history is
    used."""

    number: int
    histories: Mapping[bytes, bytes | None]
    event_ms: int


class Remade(NamedTuple):
    """A list that was made again, or why there is none."""

    answer: Answer | None
    why: str = ""


def remake_batches(
    bench: Bench, segment: Segment, wanted: Sequence[Wanted], counted: bool, progress: Callable[[int, int], None]
) -> Iterator[tuple[int, dict[bytes, Remade]]]:
    """The lists of some batches of a segment, by batch and user; `counted` says whether any of them needs counts."""
    by_number = {one.number: one for one in wanted}
    last = max(by_number)
    failed = ""
    try:
        yield from _remake(bench, segment, by_number, last, counted, progress)
    except (JournalError, RefreshesGone) as error:
        failed = str(error)
    for number, one in by_number.items():  # `_remake` has removed the batches that were made
        yield number, {user: Remade(None, failed or "its batch is not in the journal") for user in one.histories}


def _remake(
    bench: Bench,
    segment: Segment,
    wanted: dict[int, Wanted],
    last: int,
    counted: bool,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[int, dict[bytes, Remade]]]:
    popularity, counts = (
        read_anchor(segment.tape, segment.start)
        if counted
        else (Popularity(bench.lists.popularity_half_life_ms), StreamCounts())
    )
    maker = Maker(bench.lists, bench.items, popularity, counts)
    models, share = _NO_MODELS, 0.0
    for chunk in _chunks(segment.batches(), last):
        needed = [batch for batch in chunk if counted or batch.number in wanted]
        records = bench.refreshes.read(place for batch in needed for place in batch.positions())
        for batch in chunk:
            if batch.models is not None:
                models, share = batch.models, batch.canary_share
            one = wanted.pop(batch.number, None)
            if not counted and one is None:
                continue
            requests = _requests(batch, records)
            if counted:
                maker.count(batch, requests)
            if one is None:
                continue
            maker.move_to(batch.clock_ms, batch.items, one.event_ms)
            try:
                answers = maker.make(_asked(requests, one), _load(bench.models, models, share))
                yield batch.number, {user: _remade(answers.get(user)) for user in one.histories}
            except NoModel as error:
                yield batch.number, {user: Remade(None, str(error)) for user in one.histories}
        progress(chunk[-1].number - segment.first, last - segment.first)


class Maker:
    """A scorer's list maker without any output. Its methods must be called in the order of the batches."""

    def __init__(self, lists: ListConfig, items: ItemLog, popularity: Popularity, counts: StreamCounts) -> None:
        # Settings that change no list are switched off.
        lists = replace(lists, explain=0, second_stage=replace(lists.second_stage, examples_per_second=0))
        self._lists, self._items, self._popularity = lists, items, popularity
        self._now_ms = 0
        self._catalogue = Catalogue(lists.items)
        metrics, tally = ScorerMetrics(CollectorRegistry()), Tally()
        shared = lists, popularity, self._catalogue
        self._stages = TwoStages(*shared, self._clock, counts)
        signals = ListSignals(lists.signals, metrics, tally)
        self._maker = ListMaker(*shared, metrics, tally, signals, self._stages, PilotLists(""), self._clock)

    def _clock(self) -> float:
        return self._now_ms / 1000

    def count(self, batch: Batch, requests: Sequence[Request]) -> None:
        """Count the events of a batch."""
        events = self._stages.second_stage.events
        events.counts.known(batch.added)
        if batch.retaken:
            self._popularity.take_top()
        count_batch(requests, self._lists.events, self._popularity, events)

    def move_to(self, clock_ms: int, items: int, event_ms: int) -> None:
        """Set the clock, the offset up to which `items` was read, and the newest event time."""
        self._now_ms, catalogue = clock_ms, self._catalogue
        changes = self._items.between(catalogue.next_offset, items)
        catalogue.next_offset = max(catalogue.next_offset, items)
        catalogue.turned(clock_ms)
        if changes:
            catalogue.put(changes, clock_ms)
        if event_ms > self._popularity.newest_ms:  # no events were counted
            self._popularity.add("", event_ms, 0.0)

    def make(self, requests: Sequence[Request], models: Models) -> dict[bytes, Answer]:
        """The lists of a batch, in the two calls in which a scorer makes them, by user."""
        answers, canary_users = self._maker.make(requests, models)
        if canary_users:
            answers += self._maker.answer_canary(canary_users, models)
        return {answer.request.user: answer for answer in answers}


def _remade(answer: Answer | None) -> Remade:
    return Remade(answer, "" if answer is not None else "its batch has no refresh of the user")


def _load(
    models: ModelsThen, served: tuple[ServedBy | None, ServedBy | None, ServedBy | None], canary_share: float
) -> Models:
    live, previous, canary = served
    return Models(
        None if live is None else models.load(live),
        # The previous model is used only if the live one is missing or fails.
        models.load(previous) if live is None and previous is not None else None,
        models.load(canary) if canary is not None and canary_share > 0 else None,
        canary_share,
    )


def _chunks(batches: Iterable[Batch], last: int) -> Iterator[list[Batch]]:
    chunk: list[Batch] = []
    size = 0
    for batch in batches:
        if batch.number > last:
            break
        chunk.append(batch)
        size += sum(count for _, _, count in batch.taken)
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _requests(batch: Batch, records: Mapping[Position, ConsumerRecord]) -> list[Request]:
    requests = []
    for place in batch.positions():
        record = records[place]
        try:
            requests.append(Request.decode(*place, record.key, record.value))
        except Rejected:
            continue  # it became a dead letter
    stale = set(batch.stale)
    return [request for place, request in enumerate(coalesce(requests)) if place not in stale]


def _asked(requests: Sequence[Request], wanted: Wanted) -> list[Request]:
    """The requests, with the histories from the log where these are known."""
    asked = []
    for request in requests:
        encoded = wanted.histories.get(request.user)
        if encoded is not None:
            digest = history_digest(encoded)
            request = Request(
                *(request.partition, request.offset, request.user, codec.read(encoded), request.reason, request.new),
                *(request.arrivals_ms, request.asked_ms, request.forgotten),
                digest=digest,
            )
        asked.append(request)
    return asked
