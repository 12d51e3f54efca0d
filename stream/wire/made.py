"""What a list was made of, in the header `made` of its record on `recommendations`: enough to make it again.

Lists of earlier releases, and lists of others, have no such header.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["HEADER", "Made", "history_digest", "made_header"]

HEADER = "made"


def history_digest(encoded: bytes) -> int:
    """32 bits of a history as it is stored or sent, without its first byte, which says who may write it back."""
    return zlib.crc32(memoryview(encoded)[1:])


class Made(NamedTuple):
    """A list that is published again, without an item or over an older list, keeps what it was made of."""

    scorer: str  # names one life of a scorer process, and its journal; "-" when it keeps none
    batch: int  # of this life, in which the list was made
    model: str  # the first 16 digits of the sha256 of the model's artifact; "-" for popularity
    items: int  # the offset of the topic `items` up to which it was known
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
    """The header as it is; empty when there is none."""
    return next((value for name, value in headers if name == HEADER and value), b"")
