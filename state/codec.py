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

import sys
from array import array

import msgspec

from state.history import History

__all__ = ["CodecError", "UnknownVersion", "decode", "encode"]

VERSION = 1
_PREFIX = bytes([VERSION])


class CodecError(ValueError):
    """Bytes that are not a history of a known version."""


class UnknownVersion(CodecError):
    """Written by a newer Freshet: upgrade this process before it reads the store or the topic."""


class _Packed(msgspec.Struct, array_like=True, frozen=True):
    forgotten_ms: int
    items: tuple[str, ...]
    times_ms: bytes
    strengths: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


def encode(history: History) -> bytes:
    times_ms, strengths = array("q", history.times_ms), array("f", history.strengths)
    if sys.byteorder == "big":
        times_ms.byteswap()
        strengths.byteswap()
    packed = _Packed(history.forgotten_ms, history.items, times_ms.tobytes(), strengths.tobytes())
    return _PREFIX + _encoder.encode(packed)


def decode(value: bytes) -> History:
    """Raises `UnknownVersion` for another format version and `CodecError` for anything else that is not a history."""
    if value[:1] != _PREFIX:
        if not value:
            raise CodecError("an empty value is no history")
        raise UnknownVersion(f"history format version {value[0]}, this Freshet reads {VERSION}: upgrade it first")
    try:
        packed = _decoder.decode(memoryview(value)[1:])
        times_ms, strengths = array("q"), array("f")
        times_ms.frombytes(packed.times_ms)
        strengths.frombytes(packed.strengths)
    except (msgspec.DecodeError, ValueError) as error:
        raise CodecError(f"{len(value)} bytes that are no history: {error}") from error
    if not len(packed.items) == len(times_ms) == len(strengths):
        raise CodecError(
            f"columns differ: {len(packed.items)} items, {len(times_ms)} times, {len(strengths)} strengths"
        )
    if sys.byteorder == "big":
        times_ms.byteswap()
        strengths.byteswap()
    return History(packed.items, tuple(times_ms), tuple(strengths), packed.forgotten_ms)
