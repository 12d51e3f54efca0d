"""Compares a list that was served with the one that was made again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from stream.reproduce.items_then import ItemLog
from stream.reproduce.served import Served
from stream.scorer.list_maker import Answer
from stream.wire.records import ScoredItem

__all__ = ["EXACT", "Outcome", "Verdict", "compared", "not_tried"]

Verdict = Literal["same", "differs", "not tried"]

EXACT = 1e-6  # the largest difference of a score; relative to its size if that is above 1
ALONE = 5e-6  # the same, for a user who was ranked without the rest of the batch


class Outcome(msgspec.Struct):
    """`parts` says what the list was made of, and what could not be restored."""

    user: str
    verdict: Verdict
    why: str = ""
    list_at: str = ""  # partition@offset on `recommendations`
    written: int = 0  # milliseconds since 1970 UTC
    model: str = ""  # "" for popularity
    variant: str = ""
    parts: dict[str, str] = {}
    largest_difference: float = 0.0  # between the two scores at one place
    served: tuple[ScoredItem, ...] = ()
    made_again: tuple[ScoredItem, ...] = ()


def not_tried(user: bytes, why: str, served: Served | None = None, parts: dict[str, str] | None = None) -> Outcome:
    outcome = Outcome(user.decode(errors="replace"), "not tried", why, parts=parts or {})
    return outcome if served is None else _of(served, outcome)


def _of(served: Served, outcome: Outcome) -> Outcome:
    outcome.list_at, outcome.written = served.place, served.written_ms
    outcome.model, outcome.variant, outcome.served = served.list.model, served.list.variant, served.list.items
    return outcome


def compared(served: Served, answer: Answer, items: ItemLog, parts: dict[str, str], *, alone: bool = False) -> Outcome:
    """The outcome for a list that was made again."""
    outcome = _of(served, Outcome(served.user.decode(), "same", parts=parts, made_again=answer.items))
    if (answer.version, answer.variant) != (served.list.model, served.list.variant):
        by = answer.version or "popularity"
        outcome.verdict, outcome.why = "differs", f"it is made again by {by} ({answer.variant})"
        return outcome
    made = answer.items
    if len(made) != len(served.list.items):
        made = _without_barred(served, made, items, parts)
    allowed = ALONE if alone else EXACT
    outcome.largest_difference = max(
        (abs(a.score - b.score) for a, b in zip(served.list.items, made, strict=False)), default=0.0
    )
    outcome.why = _difference(served.list.items, made, allowed, ties=alone)
    if outcome.why:
        unknown = items.unknown(served.made.items if served.made is not None else 0)
        differing = {item.item for item in {*served.list.items} ^ {*made}}
        if unknown & differing:
            outcome.verdict = "not tried"
            names = ", ".join(sorted(unknown & differing)[:5])
            outcome.why = f"what `items` said then of {names} was compacted away; {outcome.why}"
        else:
            outcome.verdict = "differs"
    return outcome


def _without_barred(
    served: Served, made: tuple[ScoredItem, ...], items: ItemLog, parts: dict[str, str]
) -> tuple[ScoredItem, ...]:
    """The list without items that were barred after it was made: it is published again without them."""
    if served.made is None:
        return made
    kept = {item.item for item in served.list.items}
    barred = items.barred(served.user, served.made.items, served.list.published, served.written_ms)
    gone = [item.item for item in made if item.item not in kept and item.item in barred]
    if gone:
        parts["left out since"] = ", ".join(gone)
    return tuple(item for item in made if item.item not in gone)


def _difference(served: Sequence[ScoredItem], made: Sequence[ScoredItem], allowed: float, ties: bool) -> str:
    """A text about the first difference between two lists; "" when they are the same."""
    if len(served) != len(made):
        return f"{len(served)} items were served, {len(made)} are made again"
    for place, (one, other) in enumerate(zip(served, made, strict=True), 1):
        near = abs(one.score - other.score) <= allowed * max(1.0, abs(one.score))
        if near and (one.item == other.item or ties):
            continue
        return f"place {place}: {one.item} {one.score:.9g} was served, {other.item} {other.score:.9g} is made again"
    if ties and {item.item for item in served} != {item.item for item in made}:
        return "items of equal scores differ"
    return ""
