"""Which lists there are now, and which of them have to be written.

Once a second, these are written in this order, as many as may be written in a second: lists with an item that may not
be listed any more, then `trending`, `new` and the categories, then the next lists of similar items. A list whose items
are the same in the same order is not written again. The lists of similar items are made once for each model, and again
after each change of the items that may be listed. A new model continues where the former one stopped, so that with
frequent models not only the lists of the first items are up to date.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from model.recommend import Recommender
from model.similar import SimilarItems
from stream.itemlists.config import ItemListsConfig
from stream.itemlists.counts import ItemCounts
from stream.itemlists.writer import KnownList
from stream.wire.catalogue import Catalogue
from stream.wire.item_lists import NEW, TRENDING, ItemList, similar_to, trending_in
from stream.wire.items import ItemRecord
from stream.wire.records import ScoredItem

__all__ = ["DueLists"]

_CATEGORY = trending_in("")
_NEWEST = 1_000  # latest items that are considered for `new`

Lists = dict[str, ItemList | None]


class DueLists:
    """Makes the lists that are due. Single-threaded, without Kafka. `known` are the lists on the topic."""

    def __init__(
        self, config: ItemListsConfig, catalogue: Catalogue, counts: ItemCounts, known: Mapping[str, KnownList]
    ) -> None:
        self._config, self._catalogue, self._counts, self._known = config, catalogue, counts, known
        self._starts: dict[str, int] = {}  # by item: `from` of its record
        self._looked_ms = 0  # time up to which items that start were considered
        self._counted = -1  # events when the lists of counts were made; -1: make them again
        self._model: Recommender | None = None
        self._similar: SimilarItems | None = None
        self._walked = np.empty(0, np.int64)  # columns of the items that have a list of similar ones
        self._place = self._left = 0  # of the walk over these items: its place, and how many items are left

    def change_items(self, changes: Mapping[str, ItemRecord | None], now_ms: int) -> Lists:
        """Apply changes of `items`. Returns the lists with items that may not be listed any more, without these."""
        gone = self._catalogue.turned(now_ms)
        if changes:
            gone |= self._catalogue.put(changes, now_ms)
            for item, record in changes.items():
                self._starts.pop(item, None)
                if record is not None and record.from_ms is not None:
                    self._starts[item] = record.from_ms
        started = any(self._looked_ms < start_ms <= now_ms for start_ms in self._starts.values())
        self._looked_ms = now_ms
        if changes or gone or started:
            self._left, self._counted = len(self._walked), -1
        return self._without(gone, now_ms)

    def holding_unlisted(self, now_ms: int) -> Lists:
        """As `change_items`, for all known lists: finds the changes that happened while no trainer ran."""
        return self._without({item for known in self._known.values() for item in known.items}, now_ms)

    def _without(self, gone: Collection[str], now_ms: int) -> Lists:
        gone = {item for item in gone if not self._catalogue.listable(item, now_ms)}
        due: Lists = {}
        for name, known in self._known.items() if gone else ():
            if not gone.isdisjoint(known.items):
                items = [scored for scored in known.scored() if self._catalogue.listable(scored.item, now_ms)]
                due[name] = self._list(name, items, known.model, known.as_of, now_ms) if items else None
        return due

    def counted(self, now_ms: int) -> Lists:
        """Lists made from counts that differ from the known ones."""
        due: Lists = {}
        if self._counts.events == self._counted:
            return due
        self._counted = self._counts.events
        ranked = self._counts.popularity.top((), len(self._counts.popularity))
        newest_ms = self._counts.popularity.newest_ms
        overall: list[ScoredItem] = []
        categories: dict[str, list[ScoredItem]] = {}
        for item, weight in ranked:
            record = self._catalogue.records.get(item)
            if not self._catalogue.listable(item, now_ms):
                continue
            self._append(overall, item, weight)
            for category in () if record is None else record.categories:
                if category in categories or len(categories) < self._config.categories:
                    self._append(categories.setdefault(category, []), item, weight)
        found = {TRENDING: overall, NEW: self._newest(now_ms, newest_ms)}
        found |= {trending_in(category): items for category, items in categories.items()}
        due |= {name: None for name in self._known if name.startswith(_CATEGORY) and name not in found}
        for name, items in found.items():
            self._differing(due, name, items, "", newest_ms, now_ms)
        return due

    def _append(self, items: list[ScoredItem], item: str, weight: float) -> None:
        if len(items) < self._config.list_items:
            items.append(ScoredItem(item, weight))

    def _newest(self, now_ms: int, newest_ms: int) -> list[ScoredItem]:
        """The newest items, by the time when they were first met, or their start if that is later."""
        since_ms, arrived_ms = newest_ms - self._config.new_ms, defaultdict[str, int](int)
        arrived_ms.update(self._counts.newest(_NEWEST, since_ms))
        for item, start_ms in self._starts.items():
            if since_ms < start_ms:
                arrived_ms[item] = max(start_ms, arrived_ms[item])
        latest = sorted(arrived_ms.items(), key=lambda came: (came[1], came[0]), reverse=True)
        listed = (ScoredItem(item, ms) for item, ms in latest if self._catalogue.listable(item, now_ms))
        return [scored for scored, _ in zip(listed, range(self._config.list_items), strict=False)]

    def similar(self, model: Recommender | None, most: int, now_ms: int) -> Lists:
        """Of the next `most` lists of similar items, those that differ from the known ones."""
        if model is not self._model:
            self._follow(model)
        due: Lists = {}
        if model is None or self._similar is None or not self._left:
            return due
        count = min(most, self._left, self._similar.at_once)
        columns = np.roll(self._walked, -self._place)[:count]
        allowed = self._catalogue.allowed(model.items, now_ms) if self._catalogue.restricts else None
        ranked = self._similar.rank(columns, self._config.list_items, allowed)
        ids, as_of = model.items.ids, self._counts.popularity.newest_ms
        for column, row, scores in zip(columns.tolist(), ranked.columns, ranked.scores, strict=True):
            pairs = zip(row.tolist(), scores.tolist(), strict=True)
            items = [ScoredItem(ids[other], score) for other, score in pairs if other >= 0]
            self._differing(due, similar_to(ids[column]), items, model.version, as_of, now_ms)
        self._place, self._left = (self._place + count) % len(self._walked), self._left - count
        return due

    def _follow(self, model: Recommender | None) -> None:
        most, self._model, self._similar = self._config.similar, model, None
        if model is None or not most or len(model.items) < 2:
            self._walked, self._left = np.empty(0, np.int64), 0
            return
        self._similar = SimilarItems(model)
        self._walked = np.arange(len(model.items))
        if len(self._walked) > most:
            met = model.items.columns([item for item, _ in self._counts.popularity.top((), most)])
            self._walked = np.unique(np.concatenate([met[met >= 0], self._walked])[:most])
        self._place, self._left = self._place % len(self._walked), len(self._walked)

    def _differing(
        self, due: Lists, name: str, items: Sequence[ScoredItem], model: str, as_of: int, now_ms: int
    ) -> None:
        known = self._known.get(name)
        if tuple(scored.item for scored in items) != (() if known is None else known.items):
            due[name] = self._list(name, items, model, as_of, now_ms) if items else None

    def _list(self, name: str, items: Sequence[ScoredItem], model: str, as_of: int, now_ms: int) -> ItemList:
        return ItemList(name, tuple(items), model, as_of, now_ms)
