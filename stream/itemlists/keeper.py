"""Keeps `item-lists` up to date, as a part of the trainer.

The trainer does this because it alone has the histories of all users and the live model, and because there is only one
trainer (docs/decisions/0009).
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from model.recommend import Recommender
from ops.metrics import TrainerMetrics
from state.store import Store, StoreMemory
from stream.clients.connection import KafkaConnection
from stream.itemlists.config import ItemListsConfig
from stream.itemlists.counts import Change, ItemCounts
from stream.itemlists.lists import DueLists, Lists
from stream.itemlists.writer import ItemListWriter
from stream.wire.catalogue import Catalogue, CatalogueConfig
from stream.wire.item_follower import ItemFollower
from stream.wire.items import ItemRecord
from stream.wire.meaning import EventKinds
from stream.wire.topics import TopicPlan

__all__ = ["ItemListKeeper"]

log = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0
_COUNTING_SECONDS = 0.05  # of one turn, for histories that were stored before


class ItemListKeeper:
    """All methods are called by one thread; another thread follows `items`. Raises `KafkaError` when another writer
    has taken over."""

    def __init__(
        self,
        config: ItemListsConfig,
        items: CatalogueConfig,
        kinds: EventKinds,
        connection: KafkaConnection,
        plan: TopicPlan,
        folder: Path,
        metrics: TrainerMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._config, self._kinds, self._metrics, self._clock = config, kinds, metrics, clock
        self._folder = folder
        self._resources = ExitStack()
        self._counts: ItemCounts | None = None
        self._catalogue = Catalogue(items)
        self._due: Lists = {}
        self._gone: Lists = {}  # likewise, without items that may not be listed any more; these are written first
        self._turn_due = time.monotonic()
        self._changes: deque[Mapping[str, ItemRecord | None]] = deque()  # from the follower's thread
        with ExitStack() as opened:
            self._writer = ItemListWriter(connection, plan.item_lists)
            opened.callback(self._writer.close)
            follower = ItemFollower(
                connection, plan.items, lambda reason: metrics.items_rejected[reason].inc(), self._changes.append
            )
            opened.callback(follower.close)
            follower.start()
            self._resources = opened.pop_all()

    def count(
        self,
        identity: Mapping[str, str],
        memory: StoreMemory,
        partitions: Iterable[int],
        store_of: Callable[[int], Store],
    ) -> None:
        """Begin to count. Call it once, before the first `changed`."""
        counts = ItemCounts(
            self._folder, identity, memory, self._config.half_life_ms, self._kinds, partitions, store_of
        )
        self._counts = counts
        self._resources.callback(counts.close)
        self._lists = DueLists(self._config, self._catalogue, counts, self._writer.known)
        self._take_items()
        self._gone |= self._lists.holding_unlisted(self._now_ms())

    def changed(self, number: int, changes: Iterable[Change]) -> None:
        if self._counts is not None:
            self._counts.changed(number, changes)

    def turn(self, live: Recommender | None) -> None:
        """Do what is due; call it often. Once a second, at most `lists_per_second` lists are written. `live` is the
        live model."""
        counts = self._counts
        if counts is None:
            return
        counts.turn(_COUNTING_SECONDS)
        if time.monotonic() < self._turn_due:
            return
        self._turn_due = time.monotonic() + _EVERY_SECONDS
        self._take_items()
        now_ms, most = self._now_ms(), self._config.lists_per_second
        if counts.complete:  # else only the items of the users counted first would be trending
            self._due |= self._lists.counted(now_ms)
        if len(self._due) < most:
            self._due |= self._lists.similar(live, most - len(self._due), now_ms)
        going = dict(islice((self._gone | self._due).items(), most))
        if going and self._writer.write(going):
            self._metrics.item_lists_written.inc(len(going))
            for name in going:
                self._due.pop(name, None)
                self._gone.pop(name, None)
        self._metrics.item_lists_due.set(len(self._due | self._gone))

    def _take_items(self) -> None:
        changes: dict[str, ItemRecord | None] = {}
        while self._changes:
            changes |= self._changes.popleft()
        gone = self._lists.change_items(changes, self._now_ms())
        if changes or gone:
            self._due.clear()  # these lists are made again, from items that may be listed now
        self._gone |= gone

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def close(self) -> None:
        self._resources.close()
