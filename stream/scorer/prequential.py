"""Test, then train: every event first tests the list that its user saw; only then may it change anything.

The same event tests the served list and the popularity list of the same moment, with the same items masked. So a
difference between the two comes from the model: when the hit rates of both fall, demand has changed; when only that of
the model falls, the model has become worse.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

import msgspec

from ops.labels import EventOutcome, ListVariant
from stream.pilots.pilot import CONTROL
from stream.wire.records import InPilot, NewInteraction

__all__ = ["Judgement", "ShownList", "judge_event", "rank_of"]


class ShownList(msgspec.Struct, array_like=True, frozen=True):
    """What a user saw last, as stored by the scorer."""

    published_ms: int  # when the brokers had it
    variant: ListVariant
    version: str  # of the model, "" for popularity
    items: tuple[str, ...]
    scores: tuple[float, ...] = ()  # of the items
    # For some users: the list that another model, or the scorer without a pilot, would have shown. Both lists are then
    # tested by the same event.
    shadow_version: str = ""
    shadow: tuple[str, ...] = ()
    counted_for: str = ""  # version of the canary for which the user was counted
    made: bytes = b""  # `stream.wire.made`
    pilot: InPilot | None = None

    def encode(self) -> bytes:
        return _encoder.encode(self)

    @property
    def in_variant(self) -> bool:
        """Whether a pilot's variant made the list. Its shadow is then the list that would have been shown without the
        pilot."""
        return self.pilot is not None and self.pilot.variant != CONTROL

    def without_pilot(self) -> ShownList | None:
        """The list that would have been shown without a pilot; None where it is not known."""
        if not self.in_variant:
            return self
        if not self.shadow:
            return None
        variant: ListVariant = "control" if self.shadow_version else "popularity"
        return ShownList(self.published_ms, variant, self.shadow_version, self.shadow, counted_for=self.counted_for)

    @staticmethod
    def decode(value: bytes) -> ShownList:
        """Raises `msgspec.DecodeError`."""
        return _decoder.decode(value)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ShownList)


class Judgement(NamedTuple):
    outcome: EventOutcome
    rank: int  # 1-based; one past the list for a miss, 0 when the event says nothing about the list


def rank_of(item: str, items: Sequence[str]) -> int:
    """1-based rank of `item` among `items`; one past the list when it is not there.

    >>> rank_of("b", ["a", "b"]), rank_of("x", ["a", "b"])
    (2, 3)
    """
    return items.index(item) + 1 if item in items else len(items) + 1


def judge_event(
    event: NewInteraction,
    shown: ShownList | None,
    arrived_ms: int,
    vocabulary: Container[str] | None,
    oldest_ms: int,
    *,
    hidden: bool,
    positive: bool,
) -> Judgement:
    """What an event says about the list shown before it.

    A list that was published after the event arrived is not judged, nor is a list published before `oldest_ms`. Nor is
    a list judged by a `hidden` item, which could not stand in it, or by an item outside the model's `vocabulary` (None:
    every item is in it), which could not be ranked. An event that is not `positive` is a miss of a list that showed the
    item, and says nothing about a list that did not.
    """
    if hidden:
        return Judgement("repeat", 0)
    if shown is None or shown.published_ms > arrived_ms:
        return Judgement("no_list", 0)
    if shown.published_ms < oldest_ms:
        return Judgement("stale_list", 0)
    if vocabulary is not None and event.item not in vocabulary:
        return Judgement("out_of_vocabulary", 0)
    rank = rank_of(event.item, shown.items)
    if not positive:
        return Judgement("miss", len(shown.items) + 1) if rank <= len(shown.items) else Judgement("negative", 0)
    return Judgement("hit" if rank <= len(shown.items) else "miss", rank)
