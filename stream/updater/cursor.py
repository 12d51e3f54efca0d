"""The cursor of rescoring: which users of a partition have been sent to the scorer again for the live model.

Rescoring goes over all users of the partition in the order of their keys: from behind the key `start` to the last key,
then from the first key to `start`. For the next model it starts where it stopped for the model before, finished or not.
So every user is reached, however often models go live.

Each commit of the partition's offset carries the cursor as the offset's metadata: the cursor moves with the partition,
and a new owner continues from there. Users who were sent after the last commit are sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

__all__ = ["NO_MODEL", "RescoringCursor", "decode_cursor"]

log = logging.getLogger(__name__)

_KEY_BYTES = 200  # of a key that are kept in the metadata of a commit, which may have 4096 bytes


class RescoringCursor(msgspec.Struct, frozen=True):
    version: str = ""  # of the model
    start: bytes = b""
    after: bytes = b""  # the users up to this key have been sent
    wrapped: bool = False  # the last key was passed; now from the first key to `start`
    finished: bool = True

    def begin(self, version: str) -> RescoringCursor:
        """The cursor with which rescoring for another model begins."""
        return RescoringCursor(version, self.after, self.after, wrapped=False, finished=False)

    def advance(
        self, page: Sequence[tuple[bytes, bytes]], count: int
    ) -> tuple[Sequence[tuple[bytes, bytes]], RescoringCursor]:
        """`page` holds the first `count` keys behind `after`, with their values, or all of them if there are fewer.
        Returns the rows whose users are still to be sent, and the cursor behind those rows."""
        if self.wrapped:
            page = [row for row in page if row[0] <= self.start]
        if len(page) == count:
            return page, msgspec.structs.replace(self, after=page[-1][0])
        finished = self.wrapped or not self.start
        after = self.start if finished else b""
        return page, msgspec.structs.replace(self, after=after, wrapped=True, finished=finished)

    def encode(self) -> str:
        """The metadata of a commit. Long keys are cut so that a user is sent twice rather than not at all."""
        start = self.start if len(self.start) <= _KEY_BYTES else self.start[:_KEY_BYTES] + b"\xff"  # is in no user's id
        kept = msgspec.structs.replace(self, start=start, after=self.after[:_KEY_BYTES])
        return msgspec.json.encode({"rescoring": kept}).decode()


NO_MODEL = RescoringCursor()  # of a partition for which no model was live yet


class _Metadata(msgspec.Struct):
    rescoring: RescoringCursor = NO_MODEL


def decode_cursor(metadata: str) -> RescoringCursor:
    """The cursor in the metadata of a commit; `NO_MODEL` when there is none, or none that can be read."""
    try:
        return msgspec.json.decode(metadata, type=_Metadata).rescoring if metadata else NO_MODEL
    except msgspec.DecodeError as error:
        log.warning("a commit carries no readable progress of rescoring, which begins again: %s", error)
        return NO_MODEL
