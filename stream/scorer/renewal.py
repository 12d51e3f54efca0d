"""Published lists sent again without items that may not be listed any more.

The last lists lie beside the scorer, so the users are found by reading through them: a page at a time, as a batch of
its own between batches of fresh events. A list that is made meanwhile leaves the item out anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from typing import NamedTuple

import msgspec

from stream.scorer.catalogue import Catalogue
from stream.scorer.listable import Unlisted
from stream.scorer.prequential import ShownList
from stream.scorer.shown_lists import ShownLists
from stream.wire.records import Recommendation, ScoredItem

__all__ = ["RenewedList", "RenewedPage", "renew_page"]

_LISTS = 2_000  # read at once: some 10 ms
_FEW = 20  # items that are looked for in the stored bytes before a list is decoded


class RenewedList(NamedTuple):
    user: bytes
    value: bytes
    shown: ShownList  # what the user sees from now on


class RenewedPage(NamedTuple):
    lists: list[RenewedList]
    after: bytes | None  # where the next page begins; None behind the last


def renew_page(
    lists: ShownLists, catalogue: Catalogue, gone: Collection[str], after: bytes | None, owned: Set[int], now_ms: int
) -> RenewedPage:
    """The lists behind user `after` (None: from the first) that hold an item of `gone` which is not listed to their
    user any more, without it. Lists of partitions that are not `owned` are another scorer's to renew."""
    names = {item: item.encode() for item in gone}
    found: list[RenewedList] = []
    page = lists.page(after, _LISTS)
    for user, value in page:
        if len(names) <= _FEW and not any(name in value for name in names.values()):
            continue
        shown = lists.current(ShownList.decode(value), owned)
        if shown is None or not names.keys() & set(shown.items):
            continue
        excluded = Unlisted((), catalogue, user, now_ms)
        kept = [place for place, item in enumerate(shown.items) if item not in excluded]
        if len(kept) < len(shown.items):
            found.append(_renewed(user, shown, kept, now_ms))
    return RenewedPage(found, page[-1][0] if len(page) == _LISTS else None)


def _renewed(user: bytes, shown: ShownList, kept: list[int], now_ms: int) -> RenewedList:
    items = tuple(shown.items[place] for place in kept)
    scores = tuple(shown.scores[place] for place in kept)
    shown = msgspec.structs.replace(shown, items=items, scores=scores, published_ms=now_ms)
    record = Recommendation(
        user=user.decode(),
        items=tuple(map(ScoredItem, items, scores)),
        model=shown.version,
        variant=shown.variant,
        as_of=shown.as_of_ms,
        reason="items",
        published=now_ms,
    )
    return RenewedList(user, _encoder.encode(record), shown)


_encoder = msgspec.json.Encoder()
