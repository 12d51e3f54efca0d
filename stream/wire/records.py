"""The types of records on each topic: they are decoded strictly, and refused with a reason.

`interactions` and `recommendations` are JSON because other programs write and read them; `models` is JSON because
people read it; `refreshes` is MessagePack because only Freshet's updater and scorer use it, thousands of times a
second.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Protocol

import msgspec

from ops.labels import RejectionReason
from stream.wire.leniency import framing_hint, key_hint, time_hint, unambiguous

__all__ = [
    "CANARY_SLOT",
    "CANARY_VARIANT",
    "Announcement",
    "Forget",
    "InPilot",
    "InputRecord",
    "Interaction",
    "Limits",
    "NewInteraction",
    "Reason",
    "Recommendation",
    "Refresh",
    "Rejected",
    "ScoredItem",
    "decode_interaction",
]

# The model that answers a share of the users before it may go live is called the *canary* in this code. In records and
# metrics, which consumers and dashboards read, it has these names.
CANARY_SLOT: Final = "candidate"
CANARY_VARIANT: Final = "treatment"

RefreshReason = Literal["event", "model", "forget"]

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class InputRecord(Protocol):
    """The attributes of a consumed record that are read."""

    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def timestamp(self) -> int: ...

    @property
    def key(self) -> bytes | None: ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...

    @property
    def value(self) -> bytes | None: ...


class Rejected(ValueError):
    """A record that goes to `dead-letters`: `reason` has a fixed set of values (it labels a counter), `detail` is for
    people."""

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: RejectionReason = reason
        self.detail = detail


class Interaction(msgspec.Struct, frozen=True, gc=False):
    """`interactions`: one user met one item. Unknown fields are ignored, so producers may add their own."""

    user: Id
    item: Id
    timestamp: int  # event time, milliseconds since 1970 UTC
    weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0  # strength of the interaction
    event: Annotated[str, msgspec.Meta(max_length=64)] = ""  # its kind: click, purchase, ...


@dataclass(frozen=True, slots=True)
class Forget:
    """A null value on `interactions`: erase this user's history up to `timestamp`."""

    user: str
    timestamp: int


@dataclass(frozen=True)
class Limits:
    """The limits within which the updater accepts an interaction."""

    earliest_ms: int = 788_918_400_000
    """Oldest time of an event, in milliseconds since 1970 UTC. The default is 1995-01-01: an older time comes from a
    wrong clock."""
    ahead_ms: int = 5 * 60 * 1000
    """How far the time of an event may be ahead of the broker's clock."""
    record_bytes: int = 64 * 1024
    """Largest record that is read as an event."""

    def __post_init__(self) -> None:
        for name in ("earliest_ms", "ahead_ms", "record_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


_interaction = msgspec.json.Decoder(Interaction)
_float32 = struct.Struct("<f")


def decode_interaction(key: bytes | None, value: bytes | None, arrived_ms: int, limits: Limits) -> Interaction | Forget:
    """The record of `interactions` that arrived at the broker at `arrived_ms`; raises `Rejected`.

    An integer id becomes its digits, null counts as an absent field, and a whole float as an integer
    (`stream.wire.leniency`). An event whose time is ahead of its arrival, but within `ahead_ms`, gets the time of its
    arrival. So a later request to forget the user covers every event that arrived before it.
    """
    if key is None:
        raise Rejected("schema", "the key is null; it must be the user's id, so that one user stays in one partition")
    try:
        user = key.decode()
    except UnicodeDecodeError as error:
        raise Rejected("decode", f"the key is not UTF-8: {error}") from None
    if value is None:
        if not user:
            raise Rejected("schema", "an empty key names no user to forget")
        return Forget(user, arrived_ms)
    if len(value) > limits.record_bytes:
        raise Rejected("oversize", f"{len(value)} bytes, at most {limits.record_bytes} are accepted")
    try:
        interaction = _interaction.decode(value)
    except msgspec.ValidationError as error:
        interaction = _otherwise(value, error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected("decode", str(error) + framing_hint(value)) from None
    if interaction.user != user:
        hint = key_hint(key, interaction.user)
        raise Rejected("schema", f"the key {user[:80]!r} is not the user {interaction.user[:80]!r}{hint}")
    if interaction.timestamp < limits.earliest_ms or interaction.timestamp > arrived_ms + limits.ahead_ms:
        raise _misdated(interaction.timestamp, arrived_ms, limits)
    weight = interaction.weight
    if weight != 1.0:
        try:
            weight = _float32.unpack(_float32.pack(weight))[0]  # rounded as in the store: equal weights stay equal
        except OverflowError:
            raise Rejected("schema", f"weight {weight} does not fit a 32-bit float") from None
    if interaction.timestamp > arrived_ms or weight is not interaction.weight:
        return msgspec.structs.replace(interaction, timestamp=min(interaction.timestamp, arrived_ms), weight=weight)
    return interaction


def _otherwise(value: bytes, strict: msgspec.ValidationError) -> Interaction:
    """The event that the strict decoder refused, if it can mean one thing only; raises `Rejected`."""
    fields = unambiguous(value)
    if fields is None:
        raise Rejected("schema", str(strict)) from None
    try:
        return msgspec.convert(fields, Interaction)
    except msgspec.ValidationError as error:
        raise Rejected("schema", str(error)) from None


def _misdated(timestamp: int, arrived_ms: int, limits: Limits) -> Rejected:
    hint = time_hint(timestamp, limits.earliest_ms, arrived_ms + limits.ahead_ms)
    if timestamp < limits.earliest_ms:
        return Rejected("timestamp", f"{timestamp} ms is before {limits.earliest_ms} ms{hint}")
    return Rejected("timestamp", f"{timestamp} ms is {timestamp - arrived_ms} ms ahead of its arrival{hint}")


class NewInteraction(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An event that changed a history; `repeat` says that the item was already in the history.

    Records of the first release end with `repeat` and mean weight 1; scorers of that release ignore later fields."""

    item: str
    time_ms: int
    repeat: bool
    weight: float = 1.0  # strength of the interaction; with 0 it speaks against the item
    kind: str = ""  # as its producer names it


class Refresh(msgspec.Struct, array_like=True, frozen=True):
    """`refreshes`, keyed by user: score this history and publish the list."""

    reason: RefreshReason
    arrived_ms: int  # broker's clock of the newest event behind it; the moment of sending for reason `model`
    new: tuple[NewInteraction, ...]
    history: bytes  # `state.codec`
    live_offset: int = -1  # for reason `model`: offset in `models` of the model that must answer

    def encode(self) -> bytes:
        return _refresh_encoder.encode(self)

    @staticmethod
    def decode(value: bytes) -> Refresh:
        """Raises `Rejected`."""
        try:
            return _refresh_decoder.decode(value)
        except msgspec.ValidationError as error:
            raise Rejected("schema", str(error)) from None
        except msgspec.DecodeError as error:
            raise Rejected("decode", str(error)) from None


_refresh_encoder = msgspec.msgpack.Encoder()
_refresh_decoder = msgspec.msgpack.Decoder(Refresh)


class Reason(msgspec.Struct, frozen=True, gc=False):
    """An interaction that raised an item's score."""

    item: str  # that the user has met
    amount: float  # by which the score would be lower without it


class ScoredItem(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    item: str
    score: float
    because: tuple[Reason, ...] = ()  # the largest first; only with the setting `explain`


class InPilot(msgspec.Struct, frozen=True, gc=False):
    """The variant of a running pilot that a list belongs to."""

    name: str  # of the pilot
    variant: str  # "control" for the settings that everybody else has
    stage: int  # 1, 2, ...: grows by one with every new share


class Recommendation(msgspec.Struct, frozen=True, omit_defaults=True):
    """`recommendations`, keyed by user: the ranked list to show now. A null value means: the user was forgotten."""

    user: str
    items: tuple[ScoredItem, ...]  # best first; scores compare inside one list only
    model: str  # version that ranked it, "" for popularity
    variant: str  # control, treatment (the canary) or popularity
    as_of: int  # event time of the newest interaction it knows, milliseconds; 0 for none
    reason: str  # event, model, or items (published again because an item may not be listed any more)
    published: int  # milliseconds since 1970 UTC
    pilot: InPilot | None = None  # None without one, and for users of a canary or of a stopped variant


_OLD_SHARE = "canary_share"


class Announcement(msgspec.Struct, frozen=True):
    """`models`, keyed by slot: which artifact is `live` (or `candidate`, `previous`, `retired`) from now on."""

    slot: str
    version: str
    address: str  # an fsspec URL
    sha256: str
    parent: str  # version it was fine-tuned from, "" for a first fit
    created: int  # milliseconds since 1970 UTC
    data_until: int  # event time of the newest interaction it was fitted on, milliseconds
    items: int  # size of its catalogue
    metrics: dict[str, float] = {}
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0  # of the users that a canary answers, chosen by hash

    @staticmethod
    def decode(value: bytes) -> Announcement:
        """Raises `Rejected`."""
        try:
            announcement = msgspec.json.decode(value, type=Announcement)
            if _OLD_SHARE not in announcement.metrics:
                return announcement
            # The share was an entry of the metrics at first.
            fields = msgspec.to_builtins(announcement)
            fields["share"] = fields["metrics"].pop(_OLD_SHARE)
            return msgspec.convert(fields, Announcement)
        except msgspec.ValidationError as error:
            raise Rejected("schema", str(error)) from None
        except msgspec.DecodeError as error:
            raise Rejected("decode", str(error)) from None
