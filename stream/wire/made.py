"""The header `made` of a record on `recommendations`: it says what a list was made of, so that it can be made again.

Lists of earlier releases, and lists that other programs wrote, have no such header.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["HEADER", "Made", "history_digest", "made_header"]

HEADER = "made"


def history_digest(encoded: bytes) -> int:
    """A 32-bit checksum of an encoded history without its first byte. That byte says whether the history may be written
    back, so it differs between the stored and the sent form."""
    return zlib.crc32(memoryview(encoded)[1:])


class Made(NamedTuple):
    """What a list was made of. When the list is published again, without an item or over an older list, this stays."""

    scorer: str  # names one run of a scorer process, and its journal; "-" when it keeps none
    batch: int  # number of the batch, in this run, in which the list was made
    model: str  # the first 16 digits of the sha256 of the model's artifact; "-" for popularity
    items: int  # the offset up to which the topic `items` had been read
    event_ms: int  # the newest event that the scorer had counted
    settings: int  # `stream.scorer.config.settings_digest`
    history: int  # `history_digest`

    def encode(self) -> bytes:
        return b"%s %d %s %d %d %08x %08x" % (
            *(self.scorer.encode(), self.batch, self.model.encode(), self.items, self.event_ms),
            *(self.settings, self.history),
        )

    @classmethod
    def decode(cls, value: bytes) -> Made | None:
        """None for what `encode` did not write."""
        try:
            scorer, batch, model, items, event_ms, settings, history = value.decode().split(" ")
            return cls(scorer, int(batch), model, int(items), int(event_ms), int(settings, 16), int(history, 16))
        except ValueError:  # a UnicodeDecodeError is one, too
            return None

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[str, bytes]]) -> Made | None:
        return cls.decode(made_header(headers))


def made_header(headers: Iterable[tuple[str, bytes]]) -> bytes:
    """The value of the header; empty when there is none."""
    return next((value for name, value in headers if name == HEADER and value), b"")
