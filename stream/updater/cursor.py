"""How far a partition's users have been sent to the scorer again for the live model.

A walk goes round: from behind the key `start` to the last key, then from the first key to `start`. The next walk starts
where the one before was, finished or not. So however often models go live, everybody's turn comes.

Each commit of the partition's offset carries the cursor as the offset's metadata: it moves with the partition, and a
new owner continues the walk. What was sent after that commit is sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

__all__ = ["NO_MODEL", "RescoringCursor", "decode_cursor"]

log = logging.getLogger(__name__)

_KEY_BYTES = 200  # kept of a key in a commit, whose metadata may have 4096 bytes


class RescoringCursor(msgspec.Struct, frozen=True):
    version: str = ""  # of the model
    start: bytes = b""
    after: bytes = b""  # the users up to this key had their turn
    wrapped: bool = False  # past the last key, on the way to `start`
    finished: bool = True

    def begin(self, version: str) -> RescoringCursor:
        """The walk for another model."""
        return RescoringCursor(version, self.after, self.after, wrapped=False, finished=False)

    def advance(
        self, page: Sequence[tuple[bytes, bytes]], count: int
    ) -> tuple[Sequence[tuple[bytes, bytes]], RescoringCursor]:
        """`page` are the first `count` keys beyond `after`, with their values, or all of them. Returns those that
        belong to this walk, and the cursor behind them."""
        if self.wrapped:
            page = [row for row in page if row[0] <= self.start]
        if len(page) == count:
            return page, msgspec.structs.replace(self, after=page[-1][0])
        finished = self.wrapped or not self.start
        after = self.start if finished else b""
        return page, msgspec.structs.replace(self, after=after, wrapped=True, finished=finished)

    def encode(self) -> str:
        """For a commit. Of a long key a prefix is kept, so that a user has a second turn rather than none."""
        start = self.start if len(self.start) <= _KEY_BYTES else self.start[:_KEY_BYTES] + b"\xff"  # is in no user's id
        kept = msgspec.structs.replace(self, start=start, after=self.after[:_KEY_BYTES])
        return msgspec.json.encode({"rescoring": kept}).decode()


NO_MODEL = RescoringCursor()  # of a partition that has seen none


class _Metadata(msgspec.Struct):
    rescoring: RescoringCursor = NO_MODEL


def decode_cursor(metadata: str) -> RescoringCursor:
    """The cursor of a commit; `NO_MODEL` when another program made the commit."""
    try:
        return msgspec.json.decode(metadata, type=_Metadata).rescoring if metadata else NO_MODEL
    except msgspec.DecodeError as error:
        log.warning("a commit carries no readable progress of rescoring, which begins again: %s", error)
        return NO_MODEL
