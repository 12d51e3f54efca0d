"""Judges the last list of a user by the user's new events, before those events change anything.

The item of every event is looked up in the list that was shown, in the popularity list of the same moment and, where
they are known, in the lists that other models would have shown. `stream.scorer.prequential` says what an event can tell
about a list.
"""

from __future__ import annotations

import math
from collections.abc import Container

from ops.labels import ListVariant, Slot, Variant
from ops.metrics import ScorerMetrics, Tally
from state.popularity import Popularity
from stream.scorer.config import ListConfig
from stream.scorer.list_signals import ListSignals
from stream.scorer.models import Models
from stream.scorer.pilot_lists import PilotLists
from stream.scorer.prequential import ShownList, judge_event, rank_of
from stream.scorer.requests import Request
from stream.wire.hidden import hidden_items
from stream.wire.records import CANARY_SLOT, CANARY_VARIANT, NewInteraction

__all__ = ["Judge"]

_NDCG_RANKS = 10
_MISS_RANK = 51  # the lowest number that is recorded as the rank of a miss


class Judge:
    """Counts what new events say about lists: in `tally`, which its owner flushes, and in `signals`."""

    def __init__(
        self,
        config: ListConfig,
        popularity: Popularity,
        metrics: ScorerMetrics,
        tally: Tally,
        signals: ListSignals,
        pilots: PilotLists,
    ) -> None:
        self._config, self._popularity = config, popularity
        self._metrics, self._tally, self._signals = metrics, tally, signals
        self.pilots = pilots

    def judge(self, request: Request, shown: ShownList | None, models: Models) -> None:
        """Let the request's events judge `shown`, the last list of its user; None when no list is known."""
        arrived_ms = request.arrivals_ms[-1] if request.arrivals_ms else 0
        piloted = shown if self.pilots.counts(shown) else None
        shown = None if shown is None else shown.without_pilot()
        variant: ListVariant = "popularity" if shown is None else shown.variant
        slot = models.slot("" if shown is None else shown.version)
        judged_by = models.canary if slot == CANARY_SLOT else models.live
        # A reranker lists items that no model knows.
        ranks_any = slot == "none" or judged_by is None or judged_by.reranker is not None
        vocabulary = None if ranks_any or judged_by is None else judged_by.items
        masked = self._masked(request) if request.new else set()
        oldest_ms, kinds, length = arrived_ms - self._config.shown_ms, self._config.events, self._config.list_items
        for place, event in enumerate(request.new):
            positive = kinds.positive(event.kind, event.weight)
            # An item that is met twice in one batch had one chance to stand in the list.
            hidden = event.item in masked or (place > 0 and any(event.item == e.item for e in request.new[:place]))
            if piloted is not None and positive:
                self.pilots.judge(request.user, event, piloted, arrived_ms, oldest_ms, hidden)
            judgement = judge_event(event, shown, arrived_ms, vocabulary, oldest_ms, hidden=hidden, positive=positive)
            self._tally.inc(self._metrics.prequential_events[variant, judgement.outcome])
            if not judgement.rank or shown is None:
                continue
            rank = _miss_past_every_bucket(judgement.rank, judgement.outcome == "hit")
            self._observe(variant, slot, rank)
            if variant == "popularity":
                continue
            popular_rank = _rank_if(positive, self._popularity.rank(event.item, masked, length), length)
            popular_rank = self._paired("popularity", slot, popular_rank, length)
            self._compare(request.user, event, positive, shown, slot, rank, popular_rank, models)

    def _masked(self, request: Request) -> Container[str]:
        """The items that the shown list could not hold: those that were hidden before these events."""
        kinds, new = self._config.events, request.new
        if kinds.plain:
            return set(request.history.items) - {event.item for event in new if not event.repeat}
        return hidden_items(request.history, kinds, new[0].time_ms, {(event.item, event.time_ms) for event in new})

    def _compare(
        self,
        user: bytes,
        event: NewInteraction,
        positive: bool,
        shown: ShownList,
        slot: Slot,
        rank: int,
        popular_rank: int,
        models: Models,
    ) -> None:
        """Compare the rank in the shown list with the ranks that other lists give to the same event."""
        shadow_slot = models.slot(shown.shadow_version)
        if shown.variant == "control" and slot == "live":
            previous = None
            if shadow_slot == "previous":
                length = len(shown.shadow)
                previous = _rank_if(positive, rank_of(event.item, shown.shadow), length)
                previous = self._paired("previous_shadow", "previous", previous, length)
            self._signals.control(user, event.time_ms, rank, popular_rank, previous)
        elif shown.variant == CANARY_VARIANT and slot == CANARY_SLOT:
            stood_in = None
            if shadow_slot == "live":
                length = len(shown.shadow)
                stood_in = _rank_if(positive, rank_of(event.item, shown.shadow), length)
                stood_in = _miss_past_every_bucket(stood_in, stood_in <= length)
            self._signals.canary(user, event.time_ms, shown.version, rank, stood_in)

    def _paired(self, variant: Variant, slot: Slot, rank: int, length: int) -> int:
        """Count the outcome of the same event for a list of `length` items that was not shown."""
        hit = rank <= length
        self._tally.inc(self._metrics.prequential_events[variant, "hit" if hit else "miss"])
        rank = _miss_past_every_bucket(rank, hit)
        self._observe(variant, slot, rank)
        return rank

    def _observe(self, variant: Variant, slot: Slot, rank: int) -> None:
        self._tally.observe(self._metrics.prequential_rank[variant, slot], rank)
        if rank <= _NDCG_RANKS:
            self._tally.inc(self._metrics.prequential_ndcg[variant, slot], 1 / math.log2(1 + rank))


def _rank_if(positive: bool, rank: int, length: int) -> int:
    """`rank` in a list of `length` items for a positive event; for any other the rank of a miss, as no list can hit."""
    return rank if positive else length + 1


def _miss_past_every_bucket(rank: int, hit: bool) -> int:
    """The rank to record. A miss of a short list is recorded as `_MISS_RANK`, because the rank one past the end of that
    list would look good."""
    return rank if hit else max(rank, _MISS_RANK)
