"""The bytes of a history.

    byte 0      format version, now 1
    byte 1..    MessagePack array of four:
                  forgotten_ms   int
                  items          array of str, newest first
                  times_ms       bin, little-endian int64 per item
                  strengths      bin, little-endian float32 per item

Versions are refused when unknown: an older Freshet must not rewrite what a newer one stored.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

import msgspec

from state.history import History

__all__ = ["CodecError", "Columns", "UnknownVersion", "decode", "encode", "read"]

VERSION = 1
_PREFIX = bytes([VERSION])


class CodecError(ValueError):
    """Bytes that are not a history of a known version."""


class UnknownVersion(CodecError):
    """Written by a newer Freshet: upgrade this process before it reads the store or the topic."""


class Columns(msgspec.Struct, array_like=True, frozen=True):
    """A history as it is stored, its numbers still bytes: for readers that hand them on to an array."""

    forgotten_ms: int
    items: tuple[str, ...]  # newest first
    times_ms: bytes  # little-endian int64 per item
    strengths: bytes  # little-endian float32 per item

    @property
    def newest_ms(self) -> int:
        """Event time of the newest interaction; 0 when there is none."""
        return int.from_bytes(self.times_ms[:8], "little", signed=True)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Columns)


@lru_cache(maxsize=4096)
def _numbers(count: int) -> tuple[Struct, Struct]:
    """Layouts of the times and the strengths of so many items."""
    return Struct(f"<{count}q"), Struct(f"<{count}f")


def encode(history: History) -> bytes:
    times, strengths = _numbers(len(history.items))
    packed = Columns(
        history.forgotten_ms, history.items, times.pack(*history.times_ms), strengths.pack(*history.strengths)
    )
    return _PREFIX + _encoder.encode(packed)


def read(value: bytes) -> Columns:
    """Raises `UnknownVersion` for another format version and `CodecError` for anything else that is not a history."""
    if value[:1] != _PREFIX:
        if not value:
            raise CodecError("an empty value is no history")
        raise UnknownVersion(f"history format version {value[0]}, this Freshet reads {VERSION}: upgrade it first")
    try:
        columns = _decoder.decode(memoryview(value)[1:])
    except msgspec.DecodeError as error:
        raise CodecError(f"{len(value)} bytes that are no history: {error}") from error
    items, times, strengths = len(columns.items), len(columns.times_ms), len(columns.strengths)
    if times != 8 * items or strengths != 4 * items:
        raise CodecError(f"columns differ: {items} items, {times} bytes of times, {strengths} bytes of strengths")
    return columns


def decode(value: bytes) -> History:
    """Raises as `read` does."""
    columns = read(value)
    times, strengths = _numbers(len(columns.items))
    return History(
        columns.items, times.unpack(columns.times_ms), strengths.unpack(columns.strengths), columns.forgotten_ms
    )
