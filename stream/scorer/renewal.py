"""Lists to publish again: without items that may not be listed any more, or over an older list of the same user.

The last lists are on the scorer's disk, so the users who were shown an item are found by reading through all of them,
one page at a time, between batches of fresh events. A list that is made meanwhile leaves the item out anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from stream.scorer.prequential import ShownList
from stream.scorer.shown_lists import LastList, PartitionLists
from stream.wire.catalogue import Catalogue, Unlisted
from stream.wire.records import Recommendation, ScoredItem

__all__ = ["RenewedList", "RenewedPage", "published_again", "renew_page"]

_LISTS = 500  # lists per page: fresh events wait for one page at most
_FEW = 20  # most items that are looked for in the stored bytes before a list is decoded


class RenewedList(NamedTuple):
    user: bytes
    value: bytes | None  # of its record; None for the tombstone of a user who was forgotten
    last: LastList  # what is kept of it; its offset is known once it is delivered
    made: bytes = b""  # what it was made of when it was first published


class RenewedPage(NamedTuple):
    lists: list[RenewedList]
    after: bytes | None  # the next page begins behind this user; None after the last page


def renew_page(
    lists: PartitionLists, catalogue: Catalogue, gone: Collection[str], after: bytes | None, now_ms: int
) -> RenewedPage:
    """A page of a partition's lists behind user `after` (None: from the first). Returns those that hold an item of
    `gone` which may not be listed to their user any more; the returned lists leave out such items."""
    names = {item: item.encode() for item in gone}
    found: list[RenewedList] = []
    page = lists.page(after, _LISTS)
    for user, last in page:
        if len(names) <= _FEW and not any(name in last.encoded for name in names.values()):
            continue
        shown = last.shown
        if shown is None or not names.keys() & set(shown.items):
            continue
        excluded = Unlisted((), catalogue, user, now_ms)
        kept = [place for place, item in enumerate(shown.items) if item not in excluded]
        if len(kept) < len(shown.items):
            items = tuple(shown.items[place] for place in kept)
            scores = tuple(shown.scores[place] for place in kept)
            shown = msgspec.structs.replace(shown, items=items, scores=scores, published_ms=now_ms)
            last = last._replace(encoded=shown.encode())
            found.append(
                RenewedList(user, _record(user, shown, last.version.newest_ms, "items", now_ms), last, shown.made)
            )
    return RenewedPage(found, page[-1][0] if len(page) == _LISTS else None)


def published_again(lists: PartitionLists, newer: Mapping[bytes, LastList], now_ms: int) -> list[RenewedList]:
    """The `newer` lists, of users whose last record is an older list, except of users who got a newer list since."""
    again = []
    for (user, last), known in zip(newer.items(), lists.get(list(newer)), strict=True):
        if known is None or known.version <= last.version:
            shown = last.shown
            value = None if shown is None else _record(user, shown, last.version.newest_ms, "event", now_ms)
            again.append(RenewedList(user, value, last, b"" if shown is None else shown.made))
    return again


def _record(user: bytes, shown: ShownList, as_of_ms: int, reason: str, now_ms: int) -> bytes:
    recommendation = Recommendation(
        user=user.decode(),
        items=tuple(map(ScoredItem, shown.items, shown.scores)),
        model=shown.version,
        variant=shown.variant,
        as_of=as_of_ms,
        reason=reason,
        published=now_ms,
        pilot=shown.pilot,
    )
    return _encoder.encode(recommendation)


_encoder = msgspec.json.Encoder()
