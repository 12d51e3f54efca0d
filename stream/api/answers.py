"""Turns stored bytes into answers."""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Sequence

import msgspec

from state import codec
from stream.wire.item_lists import ItemList
from stream.wire.records import InPilot, Recommendation, ScoredItem

__all__ = ["UnusableList", "history_answer", "item_list_answer", "list_answer", "popular_answer", "read_list"]

log = logging.getLogger(__name__)

_recommendation = msgspec.json.Decoder(Recommendation)


class UnusableList(ValueError):
    """The record of this user in `recommendations` is not a list of this user."""


class _ListAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    user: str
    known: bool
    items: Sequence[ScoredItem]
    model: str
    variant: str
    as_of: int
    reason: str
    published: int
    age_ms: int
    pilot: InPilot | None = None


class _ItemListAnswer(msgspec.Struct, frozen=True):
    list: str
    items: Sequence[ScoredItem]
    model: str
    as_of: int
    published: int
    age_ms: int


class _Interaction(msgspec.Struct, frozen=True, gc=False):
    time: int
    strength: float
    event: str


class _Entry(msgspec.Struct, frozen=True, gc=False):
    item: str
    interactions: Sequence[_Interaction]


class _HistoryAnswer(msgspec.Struct, frozen=True):
    user: str
    items: Sequence[_Entry]
    forgotten: int


def read_list(user: str, stored: bytes) -> Recommendation:
    """The list stored under `user`. Raises `UnusableList` for anything else."""
    try:
        found = _recommendation.decode(stored)
    except msgspec.DecodeError as error:
        raise UnusableList(f"not a list: {error}") from None
    if found.user != user:
        raise UnusableList("a list of somebody else")
    return found


def list_answer(
    found: Recommendation,
    limit: int | None,
    exclude: Collection[str],
    unlisted: Container[str],
    explain: int,
    now_ms: int,
) -> bytes:
    items = [
        ScoredItem(scored.item, scored.score, scored.because[:explain])
        for scored in found.items
        if scored.item not in exclude and scored.item not in unlisted
    ]
    return msgspec.json.encode(
        _ListAnswer(
            found.user,
            True,
            items[:limit],
            found.model,
            found.variant,
            found.as_of,
            found.reason,
            found.published,
            max(now_ms - found.published, 0),
            found.pilot,
        )
    )


def popular_answer(user: str, items: Sequence[ScoredItem], now_ms: int) -> bytes:
    """The answer for a user of whom no list is known."""
    return msgspec.json.encode(_ListAnswer(user, False, items, "", "popularity", 0, "unknown user", now_ms, 0))


def item_list_answer(found: ItemList, items: Sequence[ScoredItem], now_ms: int) -> bytes:
    """The answer with a list that belongs to no user; `items` are those of its items that are shown."""
    age_ms = max(now_ms - found.published, 0)
    return msgspec.json.encode(_ItemListAnswer(found.list, items, found.model, found.as_of, found.published, age_ms))


def history_answer(user: str, stored: bytes, limit: int | None) -> bytes:
    """Raises `state.codec.CodecError`."""
    history = codec.decode(stored)
    items = [
        _Entry(item, [_Interaction(event.time_ms, event.strength, event.kind) for event in history.events(place)])
        for place, item in enumerate(history.items[:limit])
    ]
    return msgspec.json.encode(_HistoryAnswer(user, items, history.forgotten_ms))
