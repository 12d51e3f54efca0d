"""The last list of every user, kept beside the scorer: what the next event is judged against.

    u user        the list, `stream.scorer.prequential.ShownList`
    p partition   what was seen of the partition without a gap: first offset, next offset
    m name        anything else that shall survive a restart

Another scorer may have answered a partition's users in between: its refreshes then continue past a gap. Lists from
before the gap are not what those users saw last and are not returned. Nothing has to be told when partitions move.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import msgspec

from state.store import Store, StoreConfig, StoreMemory, StoreUnusable
from stream.scorer.prequential import ShownList

__all__ = ["ShownLists"]

log = logging.getLogger(__name__)

_IDENTITY = {"content": "last lists"}


class ShownLists:
    def __init__(self, store: Store) -> None:
        self.store = store
        self._spans: dict[int, tuple[int, int]] = {}

    @classmethod
    def open(cls, path: Path, config: StoreConfig) -> ShownLists:
        """Its content is a convenience: a broken store is replaced by an empty one."""
        memory = StoreMemory(config)
        try:
            return cls(Store(path, _IDENTITY, memory))
        except StoreUnusable as error:
            log.warning("starting without the last lists: %s", error)
            Store.destroy(path)
            return cls(Store(path, _IDENTITY, memory))

    def advance(self, partition: int, first: int, following: int) -> None:
        """The refreshes with offsets `first` to `following` - 1 of a partition are here."""
        span = self._spans.get(partition) or self._load_span(partition)
        if span is None or first > span[1]:
            span = (first, following)
        self._spans[partition] = (span[0], max(span[1], following))

    def spans(self) -> Mapping[int, tuple[int, int]]:
        """By partition, the offsets first..next-1 that were all seen here by now."""
        return dict(self._spans)

    def _load_span(self, partition: int) -> tuple[int, int] | None:
        (stored,) = self.store.get_many([b"p%d" % partition])
        return None if stored is None else msgspec.msgpack.decode(stored, type=tuple[int, int])

    def get(self, users: Iterable[tuple[int, bytes]]) -> list[ShownList | None]:
        """Lists of (partition, user) pairs. Call `advance` for their partitions before."""
        users = list(users)
        values = self.store.get_many([b"u" + user for _, user in users])
        return [
            self._current(partition, value) if value is not None else None
            for (partition, _), value in zip(users, values, strict=True)
        ]

    def _current(self, partition: int, value: bytes) -> ShownList | None:
        shown = ShownList.decode(value)
        return shown if shown.offset >= self._spans[partition][0] else None

    def page(self, after: bytes | None, count: int) -> list[tuple[bytes, bytes]]:
        """(user, encoded list) of the first `count` users beyond `after`, whatever their partitions."""
        return [(key[1:], value) for key, value in self.store.page(b"u" + (after or b""), count) if key[:1] == b"u"]

    def current(self, shown: ShownList, owned: Set[int]) -> ShownList | None:
        """The list, if it can be published again and is what its user saw last."""
        if shown.partition not in owned or len(shown.scores) != len(shown.items):
            return None
        span = self._spans.get(shown.partition) or self._load_span(shown.partition)
        return shown if span is not None and shown.offset >= span[0] else None

    def put(self, lists: Mapping[bytes, ShownList | None], seen: Mapping[int, tuple[int, int]]) -> None:
        """Store lists by user, None erases, together with how far the partitions were `seen` (`spans`) for them: what
        was seen since has no list yet, and another scorer may answer it."""
        values: dict[bytes, bytes | None] = {
            b"u" + user: None if shown is None else shown.encode() for user, shown in lists.items()
        }
        for partition, span in seen.items():
            values[b"p%d" % partition] = msgspec.msgpack.encode(span)
        self.store.write(values)

    def keep(self, name: str, value: bytes) -> None:
        self.store.write({b"m" + name.encode(): value})

    def kept(self, name: str) -> bytes | None:
        (value,) = self.store.get_many([b"m" + name.encode()])
        return value

    def close(self) -> None:
        self.store.close()
