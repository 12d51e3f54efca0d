"""A pilot: variants of the lists, the share of users who get them, and which users these are.

A hash of the pilot's name and the user gives the user's position from 0 to 1. Each variant has an equal part of this
range and serves the first `share` of its part, so a user in a variant stays in it when the share grows. All other users
are in `control`, whose lists follow the settings. A user of a variant that was stopped gets control's lists and is no
longer counted, because effects of the variant must not count for control.

A change of the share begins another stage. Counts are kept by stage, because the hit rate of all users may differ from
one stage to the next, and this must not favour or harm a variant that has grown in between.

    start --> running (stage 1) --share--> running (stage 2) --> ... --stop--> ended
                    |
                    +-- the guardrail stops every variant: no user is served one, the pilot may be ended
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Final, Literal

import msgspec

__all__ = [
    "AS_SERVED",
    "BUCKETS",
    "CONTROL",
    "STAGES",
    "ListSettings",
    "Pilot",
    "PilotError",
    "Stop",
    "Variant",
    "place",
    "started",
]

CONTROL: Final = "control"
STAGES: Final = (0.01, 0.1, 0.5, 1.0)
BUCKETS: Final = 256  # groups of users by hash, the same in all variants: the clusters of the statistics

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


class PilotError(ValueError):
    """The operation is not possible; the message says what to do."""


class ListSettings(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a variant's lists differ from those that are served without it."""

    ranking: Literal["served", "model", "popularity"] = "served"
    """`model`: the live model's own order, without the second stage; `popularity`: what is popular now."""
    list_items: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Length of the list, where that is shorter than the setting."""

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in msgspec.to_builtins(self).items())


class Variant(msgspec.Struct, frozen=True):
    name: str
    lists: ListSettings

    @staticmethod
    def parse(text: str) -> Variant:
        """A variant from a text NAME=SETTING=VALUE[,SETTING=VALUE]. Raises `PilotError`.

        >>> Variant.parse("b=ranking=popularity,list_items=10").lists
        ListSettings(ranking='popularity', list_items=10)
        """
        name, _, rest = text.partition("=")
        settings = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)
        if not settings or len(settings) != len(rest.split(",")):
            raise PilotError(f"{text!r} is no variant: NAME=SETTING=VALUE, such as b=ranking=popularity")
        try:
            lists = msgspec.convert(settings, ListSettings, strict=False)
        except msgspec.ValidationError as error:
            known = ", ".join(ListSettings.__struct_fields__)
            raise PilotError(f"variant {name!r}: {error}; there are {known}") from None
        if lists == ListSettings():
            raise PilotError(f"variant {name!r} changes nothing")
        return Variant(name, lists)


AS_SERVED: Final = Variant(CONTROL, ListSettings())


def place(pilot: str, user: bytes) -> tuple[float, int]:
    """(the user's position among all users, from 0 to 1; the user's bucket). Both are independent of each other, and of
    the choices of other pilots and of the canary."""
    digest = blake2b(b"freshet-pilot:%s\0%s" % (pilot.encode(), user), digest_size=8).digest()
    return int.from_bytes(digest[:4]) / 2**32, int.from_bytes(digest[4:]) % BUCKETS


class Stop(msgspec.Struct, frozen=True):
    """Why the guardrail stopped a variant."""

    reason: str
    at_ms: int


class Pilot(msgspec.Struct, frozen=True):
    name: str
    variants: tuple[Variant, ...]
    share: float  # of the users who are in a variant; the variants have equal parts of it
    stage: int  # 1, 2, ...
    difference: float  # of the hit rate, which the pilot is to show: intervals are tightest for it
    started_ms: int
    changed_ms: int
    shares: dict[int, float]  # of every stage so far
    ended: str = ""  # why, once it is over
    stops: dict[str, Stop] = {}  # by variant: filled in from the guardrail's own records

    # -- its users -----------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether any user is served a variant."""
        return not self.ended and any(variant.name not in self.stops for variant in self.variants)

    def variant_of(self, user: bytes) -> Variant | None:
        """The variant that the user is in, `AS_SERVED` for control; None for users of a variant that was stopped."""
        scaled = place(self.name, user)[0] * len(self.variants)
        part = int(scaled)
        if scaled - part >= self.share:
            return AS_SERVED
        variant = self.variants[part]
        return None if variant.name in self.stops else variant

    # -- its stages ----------------------------------------------------------------------------------------------------

    def at(self, share: float, now_ms: int) -> Pilot:
        """The next stage, with this share. Raises `PilotError`."""
        self._must_run()
        _check_share(share)
        if share == self.share:
            raise PilotError(f"pilot {self.name} has the share {share:g} already")
        stage = self.stage + 1
        shares = {**self.shares, stage: share}
        return msgspec.structs.replace(self, share=share, stage=stage, changed_ms=now_ms, shares=shares, stops={})

    @property
    def next_share(self) -> float:
        """The next of the usual stages. Raises `PilotError` after the last."""
        found = next((stage for stage in STAGES if stage > self.share), None)
        if found is None:
            raise PilotError(f"pilot {self.name} serves everybody: put the setting into the file, then stop the pilot")
        return found

    def end(self, reason: str, now_ms: int) -> Pilot:
        """The ended pilot: no user is served a variant any more. Raises `PilotError`."""
        if self.ended:
            raise PilotError(f"pilot {self.name} is over already: {self.ended}")
        return msgspec.structs.replace(self, ended=reason, changed_ms=now_ms, stops={})

    def _must_run(self) -> None:
        if not self.running:
            why = self.ended or "; ".join(f"{name}: {stop.reason}" for name, stop in self.stops.items())
            raise PilotError(f"pilot {self.name} serves no variant any more ({why}): start another")


def started(name: str, variants: Sequence[Variant], share: float, difference: float, now_ms: int) -> Pilot:
    """A pilot at its first stage. Raises `PilotError`."""
    _check_share(share)
    names = [variant.name for variant in variants]
    for text in (name, *names):
        if not _NAME.fullmatch(text):
            raise PilotError(f"{text!r} is no name: lower case letters, digits, - and _, at most 40")
    if not names:
        raise PilotError("a pilot needs a variant: --variant b=ranking=popularity")
    if CONTROL in names or len(set(names)) < len(names):
        raise PilotError(f"variants need names of their own, and {CONTROL!r} is everybody else: {', '.join(names)}")
    if not 0 < difference < 1:
        raise PilotError(f"the difference must be between 0 and 1, got {difference:g}")
    return Pilot(name, tuple(variants), share, 1, difference, now_ms, now_ms, {1: share})


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise PilotError(f"the share must be above 0 and at most 1, got {share:g}")
