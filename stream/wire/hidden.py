"""The items that may not be listed to a user because of the user's own events."""

from __future__ import annotations

from collections.abc import Container, Set
from dataclasses import dataclass

from state.codec import Columns, decode_columns, encode, read
from state.history import EMPTY, merge_entries
from state.traces import item_hash, trace_columns
from stream.wire.meaning import EventKinds

__all__ = ["HiddenItems", "hidden_items"]


@dataclass(frozen=True, slots=True)
class HiddenItems:
    """The items that may not be listed to one user; `in` tells whether an item is one of them."""

    items: Container[str]
    hashes: frozenset[int] = frozenset()  # `item_hash` of items that left the history

    def __contains__(self, item: object) -> bool:
        return item in self.items or (bool(self.hashes) and item_hash(str(item)) in self.hashes)


def hidden_items(
    history: Columns, kinds: EventKinds, now_ms: int, without: Set[tuple[str, int]] = frozenset()
) -> HiddenItems:
    """The items that may not be listed at `now_ms` of event time. The events of `without`, given as (item, time in ms),
    are treated as if they had not happened."""
    if without:
        names, decoded = {item for item, _ in without}, decode_columns(history)
        entries = [entry for entry in decoded.entries() if entry.item in names]
        earlier = merge_entries(
            EMPTY, [e for e in entries if (e.item, e.time_ms) not in without], len(decoded.items) + 1
        )
        rest = hidden_items(history, kinds, now_ms)
        again = hidden_items(read(encode(earlier)), kinds, now_ms)
        return HiddenItems({item for item in history.items if item in (again if item in names else rest)}, rest.hashes)
    if kinds.plain:
        hashes = trace_columns(history.traces)[1].tolist() if history.traces else ()
        return HiddenItems(set(history.items), frozenset(hashes))
    meaning = kinds.meaning(history, now_ms)
    hidden = {item for item, is_hidden in zip(history.items, meaning.hidden.tolist(), strict=True) if is_hidden}
    return HiddenItems(hidden, frozenset(meaning.hidden_hashes.tolist()))
