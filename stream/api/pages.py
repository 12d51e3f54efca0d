"""Lists that belong to no user, and the items that are left out of every list at the moment when it is read.

A list is written some time after a change, or later if its writer is down. Until then, items that may not be listed any
more are left out here.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Mapping, Sequence

from state.codec import CodecError, read
from stream.api.config import ApiConfig
from stream.api.item_lists import ItemListCopy
from stream.api.popular import PopularItems
from stream.api.problems import Refusal
from stream.wire.catalogue import Catalogue, Unlisted
from stream.wire.hidden import hidden_items
from stream.wire.item_lists import TRENDING, ItemList
from stream.wire.items import ItemRecord
from stream.wire.records import ScoredItem

__all__ = ["Pages"]

log = logging.getLogger(__name__)

_ITEMS = 20  # popular items of an answer, when no limit is given
_MOST = 1_000  # most popular items that are searched for items that may be listed


class Pages:
    """All methods are called on the event loop."""

    def __init__(self, config: ApiConfig, copy: ItemListCopy, popular: PopularItems) -> None:
        self._copy, self._popular, self._kinds = copy, popular, config.events
        self._catalogue = Catalogue(config.items)

    def change_items(self, changes: Mapping[str, ItemRecord | None], now_ms: int) -> None:
        self._catalogue.put(changes, now_ms)

    def unlisted(self, user: str, history: bytes | None, now_ms: int) -> Container[str]:
        """The items that may not be listed to a user with this stored history."""
        hidden: Container[str] = ()
        if history is not None:
            try:
                columns = read(history)
            except CodecError as error:  # the scorer hid these items when it made the list
                log.error("a history says nothing of what is hidden: %s", error)
            else:
                event_ms = max(self._popular.newest_ms, columns.newest_ms)
                hidden = hidden_items(columns, self._kinds, event_ms)
        return Unlisted(hidden, self._catalogue, user.encode(), now_ms)

    def named(
        self, name: str, limit: int | None, exclude: Collection[str], now_ms: int
    ) -> tuple[ItemList, Sequence[ScoredItem]]:
        """The list of this name, and those of its items that may be shown. Raises `Refusal` when there is none."""
        found = self._copy.read(name)
        if found is None and name == TRENDING:
            found = ItemList(name, self._counted(_ITEMS), "", self._popular.newest_ms, now_ms)
        if found is None:
            raise Refusal(404, "there is no such list")
        unlisted = Unlisted((), self._catalogue, b"", now_ms)
        return found, _left(found.items, exclude, unlisted, limit)

    def instead(self, limit: int | None, exclude: Collection[str], unlisted: Container[str]) -> Sequence[ScoredItem]:
        """Items for a user of whom no list is known: trending items and, if these are too few, items that are popular
        among the users of this instance."""
        found, wanted = self._copy.read(TRENDING), limit or _ITEMS
        items = _left(() if found is None else found.items, exclude, unlisted, wanted)
        if len(items) < wanted:
            listed = {scored.item for scored in items}
            items += _left(self._counted(_MOST), {*exclude, *listed}, unlisted, wanted - len(items))
        return items

    def _counted(self, count: int) -> tuple[ScoredItem, ...]:
        return tuple(ScoredItem(*counted) for counted in self._popular.top((), count))


def _left(
    items: Sequence[ScoredItem], exclude: Collection[str], unlisted: Container[str], limit: int | None
) -> list[ScoredItem]:
    return [scored for scored in items if scored.item not in exclude and scored.item not in unlisted][:limit]
