"""`item-lists`, keyed by the list's name: lists for pages without a user and for users without events.

    trending              items with the most interactions, whose counts decay with time
    trending/<category>   the trending items of a category
    new                   items whose first interaction or start is the most recent
    similar/<item>        items that are similar to an item

A null value means that there is no such list any more. An item's or a category's name may hold slashes itself.
"""

from __future__ import annotations

import msgspec

from stream.wire.records import ScoredItem

__all__ = ["NEW", "TRENDING", "ItemList", "decode_item_list", "similar_to", "trending_in"]

TRENDING, NEW = "trending", "new"


class ItemList(msgspec.Struct, frozen=True):
    list: str
    items: tuple[ScoredItem, ...]  # best first; the scores are as old as the list
    model: str  # version that ranked it, "" where no model did
    as_of: int  # event time of the newest interaction that was counted, milliseconds; 0 for none
    published: int  # milliseconds since 1970 UTC

    def encode(self) -> bytes:
        return _encoder.encode(self)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ItemList)


def trending_in(category: str) -> str:
    return f"{TRENDING}/{category}"


def similar_to(item: str) -> str:
    return f"similar/{item}"


def decode_item_list(key: bytes, value: bytes) -> ItemList:
    """Raises `msgspec.DecodeError` for anything that is not the list of this name."""
    found = _decoder.decode(value)
    if found.list.encode() != key:
        raise msgspec.DecodeError(f"a list named {found.list[:80]!r}")
    return found
