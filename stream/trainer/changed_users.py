"""The users whose histories have something that the model has not learnt, kept on disk because they may be many.

Two kinds of keys in the store of a partition:

    c user           why the user counts as changed: see `Changed`
    o offset user    the same users in the order of their last records

While promotions are frozen no changes are learnt, and in time nearly all users are here; memory holds only two sums. A
crash may cut a batch that is too large for one write. Markers (`c`) are written before places (`o`), so a missing place
is written again at the next start; a place that contradicts its marker is skipped and later removed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from state.store import Store

__all__ = ["Batch", "Changed", "ChangedUsers", "Offsets"]

Batch = dict[bytes, bytes | None]  # for `Store.write`
Offsets = tuple[int, int]  # from the first to before the second

_MARKER, _AFTER_MARKERS, _PLACE, _AFTER_PLACES = b"c", b"d", b"o", b"p"
_marker, _offset = struct.Struct("<qqi"), struct.Struct(">Q")
_PAGE = 10_000


class Changed(NamedTuple):
    """Why a user's history has something to teach."""

    offset: int  # of the user's last record
    seen_ms: int  # the newest interaction that the last learnt round knew; 0 for a new user
    new: int  # interactions after `seen_ms`


def _place(offset: int, user: bytes = b"") -> bytes:
    return _PLACE + _offset.pack(offset) + user


class ChangedUsers:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._users = self.new_interactions = 0
        markers = self.items()
        while page := list(islice(markers, _PAGE)):
            self._users += len(page)
            self.new_interactions += sum(changed.new for _, changed in page)
            places = [_place(changed.offset, user) for user, changed in page]
            found = store.get_many(places)
            store.write({place: b"" for place, value in zip(places, found, strict=True) if value is None})

    def __len__(self) -> int:
        return self._users

    def items(self) -> Iterator[tuple[bytes, Changed]]:
        """Every changed user, by name."""
        for key, value in self._store.items(_MARKER, _AFTER_MARKERS):
            yield key[1:], Changed(*_marker.unpack(value))

    def get(self, users: Sequence[bytes]) -> dict[bytes, Changed]:
        """The changes of those of `users` who changed."""
        values = self._store.get_many([_MARKER + user for user in users])
        found = zip(users, values, strict=True)
        return {user: Changed(*_marker.unpack(value)) for user, value in found if value is not None}

    def put(self, user: bytes, before: Changed | None, changed: Changed | None, batch: Batch) -> None:
        """Note a change; None notes that the model has learnt everything of the user. The sums change at once, the
        store only when the caller writes `batch`."""
        self._users += (changed is not None) - (before is not None)
        self.new_interactions += (changed.new if changed else 0) - (before.new if before else 0)
        batch[_MARKER + user] = None if changed is None else _marker.pack(*changed)
        if before is not None and (changed is None or changed.offset != before.offset):
            batch[_place(before.offset, user)] = None
        if changed is not None:
            batch[_place(changed.offset, user)] = b""

    def take(self, most: int) -> tuple[dict[bytes, Changed], Offsets | None]:
        """At most `most` changed users, and the offsets between which all other changed users have their last records.

        When there are more, three quarters are the users who changed last, so that the model follows the newest tastes.
        The rest are the users who have waited longest, so that every user is learnt in the end.
        """
        if self._users <= most:
            return dict(self._between(0, None)), None
        oldest = dict(islice(self._between(0, None), most // 4))
        newest = dict(islice(self._newest(), most - len(oldest)))
        if not newest:
            return oldest, None
        first = max((changed.offset for changed in oldest.values()), default=-1) + 1
        return oldest | newest, (first, min(changed.offset for changed in newest.values()))

    def learnt(self, next_offset: int, left: Offsets | None, batch: Batch) -> None:
        """Remove the changes of users whose last records lie below `next_offset`, except those in `left`."""
        ranges = [(0, next_offset)] if left is None else [(0, left[0]), (left[1], next_offset)]
        for first, until in ranges:
            for user, changed in self._between(first, until, batch):
                self.put(user, changed, None, batch)

    def since(self, offset: int) -> dict[bytes, Changed]:
        """Users with their last records at `offset` or later."""
        return dict(self._between(offset, None))

    def _between(self, first: int, until: int | None, stale: Batch | None = None) -> Iterator[tuple[bytes, Changed]]:
        places = self._store.items(_place(first), _AFTER_PLACES if until is None else _place(until))
        yield from self._checked((key for key, _ in places), stale)

    def _newest(self) -> Iterator[tuple[bytes, Changed]]:
        yield from self._checked(key for key, _ in self._store.items_backwards(_PLACE, _AFTER_PLACES))

    def _checked(self, places: Iterator[bytes], stale: Batch | None = None) -> Iterator[tuple[bytes, Changed]]:
        while page := list(islice(places, _PAGE)):
            start = 1 + _offset.size
            changed = self.get([place[start:] for place in page])
            for place in page:
                user = place[start:]
                found = changed.get(user)
                if found is not None and place == _place(found.offset, user):
                    yield user, found
                elif stale is not None:
                    stale[place] = None
