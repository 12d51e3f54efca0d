"""`items`, keyed by item: records in which a shop or a library describes its items. A null value removes a record.

An item is listed unless its record, or the setting `require`, says otherwise. Unknown fields are ignored, so producers
may add their own.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from stream.wire.records import Id, Rejected

__all__ = ["ItemRecord", "decode_item"]


class ItemRecord(msgspec.Struct, frozen=True, omit_defaults=True, rename={"from_ms": "from", "until_ms": "until"}):
    item: Id
    available: bool = True
    from_ms: int | None = None  # milliseconds since 1970 UTC: not listed before this time
    until_ms: int | None = None  # milliseconds since 1970 UTC: not listed from this time on
    categories: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=200)], ...] = ()
    labels: dict[str, str] = {}
    embedding: tuple[float, ...] = ()
    hide_from: tuple[str, ...] = ()  # users to whom it is not listed

    def listable(self, now_ms: int) -> bool:
        """Whether the item may be listed at this moment to users whom `hide_from` does not name."""
        started = self.from_ms is None or now_ms >= self.from_ms
        return self.available and started and (self.until_ms is None or now_ms < self.until_ms)

    def encode(self) -> bytes:
        return _encoder.encode(self)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ItemRecord)


def decode_item(key: bytes | None, value: bytes | None) -> tuple[str, ItemRecord | None]:
    """(Item, its record); the record is None when a null value removes it. Raises `Rejected`."""
    if not key:
        raise Rejected("schema", "the key is empty; it must be the item's id")
    try:
        item = key.decode()
    except UnicodeDecodeError as error:
        raise Rejected("decode", f"the key is not UTF-8: {error}") from None
    if value is None:
        return item, None
    try:
        record = _decoder.decode(value)
    except msgspec.ValidationError as error:
        raise Rejected("schema", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("decode", str(error)) from None
    if record.item != item:
        raise Rejected("schema", f"the key {item[:80]!r} is not the item {record.item[:80]!r}")
    if record.from_ms is not None and record.until_ms is not None and record.from_ms >= record.until_ms:
        raise Rejected("schema", f"from {record.from_ms} is not before until {record.until_ms}")
    return item, record
