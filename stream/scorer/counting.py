"""What a batch adds to popularity and to the counts of the second stage."""

from __future__ import annotations

from collections.abc import Sequence

from state.popularity import Popularity
from stream.scorer.event_counts import EventCounts
from stream.scorer.requests import Request
from stream.wire.meaning import EventKinds
from stream.wire.records import NewInteraction

__all__ = ["count_batch", "count_event"]


def count_event(event: NewInteraction, kinds: EventKinds, popularity: Popularity) -> None:
    """Count an event towards popularity, if it is a positive event."""
    if kinds.positive(event.kind, event.weight):
        popularity.add(event.item, event.time_ms, kinds[event.kind].strength)


def count_batch(requests: Sequence[Request], kinds: EventKinds, popularity: Popularity, events: EventCounts) -> None:
    """Count a batch again, in the order in which `stream.scorer.scoring` counted it."""
    for request in requests:
        for event in request.new:
            count_event(event, kinds, popularity)
    popularity.refresh()
    events.count(requests)
