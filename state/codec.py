"""The bytes of a history.

    byte 0      format version: 1, or 2 when the array has more than four elements
    byte 1..    MessagePack array:
                  forgotten_ms   int
                  items          array of str, newest first
                  times_ms       bin, little-endian int64 per item: of its last interaction
                  strengths      bin, little-endian float32 per item: of its last interaction
                format 2 goes on:
                  kinds          array of str: the kinds that the next two elements name by their place; the first is ""
                  item_kinds     bin, little-endian uint16 per item: of its last interaction; empty when all are ""
                  earlier        bin, 16 bytes per earlier interaction: uint16 place of the item, uint16 kind,
                                 float32 strength, int64 time; by item, newest first
                  traces         bin, see `state.traces`

A history that needs only the first four elements is written as format 1. Unknown versions are refused, because an older
Freshet must not rewrite what a newer one stored. A reader that never writes histories back does no harm if it does not
know all elements: with `for_reading`, a reader of format 1 gets the elements that it knows.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

import msgspec

from state.history import Event, History

__all__ = ["CodecError", "Columns", "UnknownVersion", "decode", "decode_columns", "encode", "for_reading", "read"]

VERSION = 2
_PREFIXES = (b"\x01", b"\x02")
_EARLIER = Struct("<HHfq")


class CodecError(ValueError):
    """Bytes that are not a history of a known version."""


class UnknownVersion(CodecError):
    """The bytes were written by a newer Freshet: upgrade this process before it reads the store or the topic."""


class Columns(msgspec.Struct, array_like=True, frozen=True):
    """A history as it is stored: its numbers are still bytes, for readers that turn them into arrays."""

    forgotten_ms: int
    items: tuple[str, ...]  # newest first
    times_ms: bytes  # little-endian int64 per item
    strengths: bytes  # little-endian float32 per item
    kinds: tuple[str, ...] = ()
    item_kinds: bytes = b""
    earlier: bytes = b""
    traces: bytes = b""

    @property
    def newest_ms(self) -> int:
        """Event time of the newest interaction; 0 when there is none."""
        return int.from_bytes(self.times_ms[:8], "little", signed=True)

    def unpacked_times_ms(self) -> tuple[int, ...]:
        """Event times of the last interactions, newest first."""
        return _numbers(len(self.items))[0].unpack(self.times_ms)


class _Columns1(msgspec.Struct, array_like=True, frozen=True):
    forgotten_ms: int
    items: tuple[str, ...]
    times_ms: bytes
    strengths: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Columns)


@lru_cache(maxsize=4096)
def _numbers(count: int) -> tuple[Struct, Struct, Struct]:
    """Layouts of the times, the strengths and the kinds of this many items."""
    return Struct(f"<{count}q"), Struct(f"<{count}f"), Struct(f"<{count}H")


def encode(history: History) -> bytes:
    times, strengths, kinds = _numbers(len(history.items))
    packed = times.pack(*history.times_ms), strengths.pack(*history.strengths)
    if not (history.kinds or history.earlier or history.traces):
        return _PREFIXES[0] + _encoder.encode(_Columns1(history.forgotten_ms, history.items, *packed))
    table = {"": 0}
    for kind in history.kinds:
        table.setdefault(kind, len(table))
    item_kinds = kinds.pack(*(table[kind] for kind in history.kinds)) if history.kinds else b""
    rows = [
        _EARLIER.pack(place, table.setdefault(event.kind, len(table)), event.strength, event.time_ms)
        for place, events in enumerate(history.earlier)
        for event in events
    ]
    columns = Columns(
        history.forgotten_ms, history.items, *packed, tuple(table), item_kinds, b"".join(rows), history.traces
    )
    return _PREFIXES[1] + _encoder.encode(columns)


def for_reading(value: bytes) -> bytes:
    """An encoded history for readers that never write it back: its version is 1, even if more than four elements
    follow."""
    return _PREFIXES[0] + value[1:]


def read(value: bytes) -> Columns:
    """Decode a history without its numbers. Raises `UnknownVersion` for another format version and `CodecError` for
    anything else that is not a history."""
    if value[:1] not in _PREFIXES:
        if not value:
            raise CodecError("an empty value is no history")
        raise UnknownVersion(f"history format version {value[0]}, this Freshet reads 1 to {VERSION}: upgrade it first")
    try:
        columns = _decoder.decode(memoryview(value)[1:])
    except msgspec.DecodeError as error:
        raise CodecError(f"{len(value)} bytes that are no history: {error}") from error
    items, times, strengths = len(columns.items), len(columns.times_ms), len(columns.strengths)
    if times != 8 * items or strengths != 4 * items:
        raise CodecError(f"columns differ: {items} items, {times} bytes of times, {strengths} bytes of strengths")
    if len(columns.item_kinds) not in (0, 2 * items) or len(columns.earlier) % _EARLIER.size or len(columns.traces) % 8:
        raise CodecError(
            f"columns differ: {items} items, {len(columns.item_kinds)} bytes of kinds, "
            f"{len(columns.earlier)} of earlier interactions, {len(columns.traces)} of traces"
        )
    return columns


def decode(value: bytes) -> History:
    """Decode a history. Raises as `read` does."""
    return decode_columns(read(value))


def decode_columns(columns: Columns) -> History:
    """Decode a history that `read` returned, with its numbers. Raises `CodecError`."""
    count = len(columns.items)
    times, strengths, places = _numbers(count)
    history = History(
        columns.items, times.unpack(columns.times_ms), strengths.unpack(columns.strengths), columns.forgotten_ms
    )
    if not (columns.item_kinds or columns.earlier or columns.traces):
        return history
    table = columns.kinds
    try:
        kinds = tuple(table[number] for number in places.unpack(columns.item_kinds)) if columns.item_kinds else ()
        earlier: tuple[tuple[Event, ...], ...] = ()
        if columns.earlier:
            rows: list[list[Event]] = [[] for _ in range(count)]
            for place, number, strength, time_ms in _EARLIER.iter_unpack(columns.earlier):
                rows[place].append(Event(time_ms, strength, table[number]))
            earlier = tuple(map(tuple, rows))
    except IndexError as error:
        raise CodecError("a history that names a kind or an item that is not there") from error
    return history._replace(kinds=kinds, earlier=earlier, traces=columns.traces)
