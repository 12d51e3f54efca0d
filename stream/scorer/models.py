"""The models that may score now, and which users get which."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from model.recommend import Recommender
from ops.labels import Slot
from stream.registry.reference import Reference
from stream.wire.records import CANARY_SLOT, Announcement

__all__ = ["Models", "in_canary_share"]


_SALT = b"freshet-treatment:"  # with another salt, other users would get the canary in the middle of its trial


@dataclass(frozen=True)
class Models:
    """Replaced as a whole, so a batch sees one consistent set."""

    live: Recommender | None = None
    previous: Recommender | None = None
    canary: Recommender | None = None
    canary_share: float = 0.0  # share of the users, chosen by hash
    reference: Reference | None = None  # describes the data that the live model was fitted on
    announced: Mapping[str, Announcement] = field(default_factory=dict)  # by version of the model

    def slot(self, version: str) -> Slot:
        """The slot of the model with this version; "retired" when no slot holds it, "none" when `version` is empty."""
        return self._slots.get(version, "retired")

    @cached_property
    def _slots(self) -> dict[str, Slot]:
        placed: tuple[tuple[Slot, Recommender | None], ...] = (
            ("previous", self.previous),
            (CANARY_SLOT, self.canary),
            ("live", self.live),
        )
        return {model.version: slot for slot, model in placed if model is not None} | {"": "none"}

    def gets_canary(self, user: bytes) -> bool:
        """Does the canary answer this user?"""
        return self.canary is not None and self.canary_share > 0 and in_canary_share(user, self.canary_share)


def in_canary_share(user: bytes, share: float) -> bool:
    """A stable hash of the user decides: the same answer in every process and run."""
    return zlib.crc32(_SALT + user) / 2**32 < share
