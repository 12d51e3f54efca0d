"""Which items may be listed now, and to which users, by the records of the topic `items`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from stream.wire.items import ItemRecord

__all__ = ["Catalogue", "CatalogueConfig", "Columns", "Unlisted"]


class Columns(Protocol):
    """Items in columns: the catalogue of a model, or a catalogue that grows at its end."""

    @property
    def ids(self) -> Sequence[str]:
        """Item of every column."""
        ...

    def __len__(self) -> int: ...

    def columns(self, items: Iterable[str]) -> np.ndarray:
        """int64 columns of items, -1 where there is none."""
        ...


@dataclass(frozen=True)
class CatalogueConfig:
    require: bool = False
    """Whether items without a record in the topic `items` are left out of lists."""


class Catalogue:
    """Single-threaded: the scoring thread reads it, and applies changes between batches.

    Only restricted items take time and memory in a batch.
    """

    def __init__(self, config: CatalogueConfig | None = None) -> None:
        self.config = config or CatalogueConfig()
        self.records: dict[str, ItemRecord] = {}
        self.next_offset = 0  # of the topic: all records before it are taken in
        self._restricted: dict[str, ItemRecord] = {}  # by availability or time
        self._hidden_from: dict[str, set[str]] = defaultdict(set)  # items by user
        self._turns_ms: int | None = None  # when the next item starts or ends
        self._allowed: dict[int, tuple[Columns, np.ndarray]] = {}  # by id of a model's index

    def put(self, changes: Mapping[str, ItemRecord | None], now_ms: int) -> set[str]:
        """Take in changes. Returns the items that were listed before and may not be listed any more, either to nobody
        or not to a user of `hide_from`."""
        gone = set()
        for item, record in changes.items():
            before = self.records.get(item)
            if record is None:
                self.records.pop(item, None)
            else:
                self.records[item] = record
            hidden_before = set(before.hide_from) if before is not None else set()
            hidden = set(record.hide_from) if record is not None else set()
            was_listed = self._listed(before, now_ms)
            if was_listed and (not self._listed(record, now_ms) or hidden - hidden_before):
                gone.add(item)
            self._restrict(item, record, hidden_before, hidden)
        self._allowed.clear()
        self._turns_ms = self._next_turn(now_ms)
        return gone

    def _restrict(self, item: str, record: ItemRecord | None, hidden_before: set[str], hidden: set[str]) -> None:
        if record is None or (record.available and record.from_ms is None and record.until_ms is None):
            self._restricted.pop(item, None)
        else:
            self._restricted[item] = record
        for user in hidden_before - hidden:
            self._hidden_from[user].discard(item)
        for user in hidden - hidden_before:
            self._hidden_from[user].add(item)

    def turned(self, now_ms: int) -> set[str]:
        """Items whose time ended since the last call. No record announces that."""
        if self._turns_ms is None or now_ms < self._turns_ms:
            return set()
        last_ms, self._turns_ms = self._turns_ms, self._next_turn(now_ms)
        self._allowed.clear()
        return {
            item
            for item, record in self._restricted.items()
            if record.until_ms is not None and last_ms <= record.until_ms <= now_ms
        }

    def _next_turn(self, now_ms: int) -> int | None:
        moments = (at for record in self._restricted.values() for at in (record.from_ms, record.until_ms))
        return min((at for at in moments if at is not None and at > now_ms), default=None)

    def _listed(self, record: ItemRecord | None, now_ms: int) -> bool:
        return not self.config.require if record is None else record.listable(now_ms)

    @property
    def restricts(self) -> bool:
        """Whether items may be unlisted for all users: by availability, by time or by `require`."""
        return self.config.require or bool(self._restricted)

    @property
    def hides(self) -> bool:
        """Whether `hide_from` of an item ever named a user."""
        return bool(self._hidden_from)

    def unlisted(self, now_ms: int) -> set[str]:
        """Items with a record that are not listed to all users."""
        named = {item for items in self._hidden_from.values() for item in items}
        return named | {item for item, record in self._restricted.items() if not record.listable(now_ms)}

    def listable(self, item: str, now_ms: int) -> bool:
        """Whether an item may be listed at all; `hide_from` is not looked at."""
        return self._listed(self.records.get(item), now_ms)

    def hidden_from(self, user: bytes) -> Iterable[str]:
        """Items whose `hide_from` names this user."""
        return self._hidden_from.get(user.decode(), ()) if self._hidden_from else ()

    def allowed(self, index: Columns, now_ms: int) -> np.ndarray:
        """bool [I]: which columns of a catalogue may be listed. The array is kept until something changes."""
        kept = self._allowed.get(id(index))
        if kept is not None and kept[0] is index:
            allowed, later = kept[1], index.ids[len(kept[1]) :]
            if later:  # a catalogue that grows
                more = [self._listed(self.records.get(item), now_ms) for item in later]
                allowed = np.concatenate([allowed, np.array(more)])
                self._allowed[id(index)] = index, allowed
            return allowed
        names: Sequence[str] = list(self.records if self.config.require else self._restricted)
        allowed = np.full(len(index), not self.config.require)
        columns = index.columns(names)
        listed = np.fromiter((self._listed(self.records[name], now_ms) for name in names), bool, len(names))
        allowed[columns[columns >= 0]] = listed[columns >= 0]
        if len(self._allowed) >= 8:
            self._allowed.clear()
        self._allowed[id(index)] = index, allowed
        return allowed


class Unlisted:
    """All items that may not be listed to one user; `in` tells whether an item is one of them."""

    def __init__(self, hidden: Container[str], catalogue: Catalogue, user: bytes, now_ms: int) -> None:
        self._hidden, self._catalogue, self._now_ms = hidden, catalogue, now_ms
        self._from_user = catalogue.hidden_from(user)

    def __contains__(self, item: object) -> bool:
        name = str(item)
        return item in self._hidden or name in self._from_user or not self._catalogue.listable(name, self._now_ms)
