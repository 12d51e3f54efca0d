"""The requests of a scorer: refreshes are decoded, and combined into one request for each user of a batch."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from state import codec
from stream.wire.history_version import HistoryVersion
from stream.wire.made import history_digest
from stream.wire.records import NewInteraction, Refresh, RefreshReason, Rejected

__all__ = ["Request", "coalesce"]


_NOT_YET = HistoryVersion(0, 0, 0)


class Request(msgspec.Struct, frozen=True):
    """One user's newest refresh, with the new events of the user's earlier refreshes in the same batch."""

    partition: int
    offset: int
    user: bytes
    history: codec.Columns
    reason: RefreshReason
    new: tuple[NewInteraction, ...] = ()
    arrivals_ms: tuple[int, ...] = ()  # broker's clock of every event refresh that this one answers, oldest first
    asked_ms: int = 0  # event time that the list is for, if that is later than the newest event
    forgotten: bool = False  # this batch also forgot the user: nothing shown before it is known any more
    version: HistoryVersion = _NOT_YET  # always that of `history`
    digest: int = 0  # of the history's bytes
    live_offset: int = -1  # offset in `models` of the model that must make the list; -1 for whichever is live

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "version", HistoryVersion.of(self.history))

    @classmethod
    def decode(cls, partition: int, offset: int, user: bytes | None, value: bytes | None) -> Request:
        """Decode a record of `refreshes`. Raises `Rejected`."""
        if user is None or value is None:
            raise Rejected("schema", "a refresh needs a user and a history")
        refresh = Refresh.decode(value)
        try:
            user.decode()
            history = codec.read(refresh.history)
        except (codec.CodecError, UnicodeDecodeError) as error:
            raise Rejected("schema", str(error)) from None
        arrivals_ms = (refresh.arrived_ms,) if refresh.reason == "event" else ()
        forgotten = refresh.reason == "forget"
        return cls(
            *(partition, offset, user, history, refresh.reason, refresh.new, arrivals_ms),
            forgotten=forgotten,
            digest=history_digest(refresh.history),
            live_offset=refresh.live_offset,
        )

    @property
    def newest_ms(self) -> int:
        """Event time of the newest interaction; 0 when there is none."""
        return self.version.newest_ms

    def followed_by(self, later: Request) -> Request:
        """`later`, which holds the whole history, with the new events and the arrival times of both requests."""
        if later.reason == "forget" or self.reason == "forget":
            return msgspec.structs.replace(later, forgotten=True)
        return msgspec.structs.replace(
            later,
            reason="event" if self.reason == "event" else later.reason,
            new=self.new + later.new,
            arrivals_ms=self.arrivals_ms + later.arrivals_ms,
            forgotten=self.forgotten,
        )


def coalesce(requests: Iterable[Request]) -> list[Request]:
    """One request per user, in order of first appearance. A request whose history is older than that of the user's
    request before it is left out: it comes from an updater that had lost the partition."""
    newest: dict[bytes, Request] = {}
    for request in requests:
        before = newest.get(request.user)
        if before is None:
            newest[request.user] = request
        elif request.version >= before.version:
            newest[request.user] = before.followed_by(request)
    return list(newest.values())
