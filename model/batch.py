"""Users' histories packed for a model: compressed sparse rows, newest interaction first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.items import ItemIndex

__all__ = ["Histories", "Padded", "joined", "without"]

UserColumns = tuple[Sequence[str], Sequence[int], Sequence[float]]  # items, times_ms, strengths, newest first
UserBytes = tuple[Sequence[str], bytes, bytes]  # the same, with numbers as little-endian int64 and float32


@dataclass(frozen=True)
class Padded:
    """Rows padded to a rectangle on a device, B users by L places, place 0 the newest."""

    columns: Tensor  # int64 [B, L], 0 where padded
    times_ms: Tensor  # int64 [B, L]
    strengths: Tensor  # float32 [B, L], 0 where padded
    lengths: Tensor  # int64 [B]

    @property
    def valid(self) -> Tensor:
        """bool [B, L]: places that hold an interaction."""
        return torch.arange(self.columns.shape[1], device=self.columns.device) < self.lengths[:, None]


@dataclass(frozen=True)
class Histories:
    """Row u is entries offsets[u]..offsets[u+1], newest first. A column of -1 is an unknown item, see `known`."""

    offsets: np.ndarray  # int64 [B + 1]
    columns: np.ndarray  # int64 [nnz]
    times_ms: np.ndarray  # int64 [nnz]
    strengths: np.ndarray  # float32 [nnz]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64 [B], interactions of each user."""
        return np.diff(self.offsets)

    @property
    def _places(self) -> np.ndarray:
        """int64 [nnz]: the place of each interaction in its row, 0 the newest."""
        return np.arange(len(self.columns)) - np.repeat(self.offsets[:-1], self.lengths)

    @classmethod
    def pack(cls, index: ItemIndex, users: Iterable[UserColumns]) -> Histories:
        """B rows in the order of `users`. Interactions with items the index does not know are left out."""
        return cls.pack_bytes(
            index,
            (
                (items, np.asarray(times, "<i8").tobytes(), np.asarray(strengths, "<f4").tobytes())
                for items, times, strengths in users
            ),
        )

    @classmethod
    def pack_bytes(cls, index: ItemIndex, users: Iterable[UserBytes]) -> Histories:
        """As `pack`, from columns that are packed already, without a Python object for every number."""
        items: list[str] = []
        times: list[bytes] = []
        strengths: list[bytes] = []
        offsets = [0]
        for user_items, user_times, user_strengths in users:
            items += user_items
            times.append(user_times)
            strengths.append(user_strengths)
            offsets.append(len(items))
        packed = cls(
            np.asarray(offsets, dtype=np.int64),
            index.columns(items),
            np.frombuffer(b"".join(times), "<i8").astype(np.int64),
            np.frombuffer(b"".join(strengths), "<f4").astype(np.float32),
        )
        return packed.known()

    @classmethod
    def from_rows(cls, rows: np.ndarray, users: int) -> Histories:
        """From (user, item) int rows, in time order for each user; the times are then ranks."""
        order = np.argsort(rows[:, 0], kind="stable")
        columns = rows[order, 1].astype(np.int64)
        counts = np.bincount(rows[:, 0], minlength=users)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        age = np.arange(len(columns)) - np.repeat(offsets[:-1], counts)  # 0 oldest
        newest_first = np.repeat(offsets[1:], counts) - 1 - age
        return cls(offsets, columns[newest_first], age[newest_first], np.ones(len(columns), np.float32))

    def known(self) -> Histories:
        """The histories without interactions with unknown items, which models neither score nor learn."""
        return self if (self.columns >= 0).all() else self._where(self.columns >= 0)

    def _where(self, kept: np.ndarray) -> Histories:
        total = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        return Histories(total[self.offsets], self.columns[kept], self.times_ms[kept], self.strengths[kept])

    def select(self, rows: np.ndarray) -> Histories:
        """The users `rows` int64 [any], in this order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        entries = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(self.offsets[rows], lengths)
        return Histories(offsets, self.columns[entries], self.times_ms[entries], self.strengths[entries])

    def split(self, counts: np.ndarray) -> tuple[Histories, Histories]:
        """(newest, rest): the newest `counts[u]` interactions of each row, and the earlier ones."""
        newest = self._places < np.repeat(counts, self.lengths)
        return self._where(newest), self._where(~newest)

    def split_at(self, time_ms: int) -> tuple[Histories, Histories]:
        """(newer, rest): interactions after `time_ms`, and those at or before it."""
        newer = self.times_ms > time_ms
        return self._where(newer), self._where(~newer)

    def newest(self, limit: int) -> Histories:
        """Each row cut to its newest `limit` interactions."""
        if not len(self) or self.lengths.max() <= limit:
            return self
        return self._where(self._places < limit)

    def padded(self, device: torch.device, limit: int | None = None) -> Padded:
        """Rectangles [B, L] on `device` of each row's newest `limit` interactions, L the longest of them."""
        lengths = self.lengths if limit is None else np.minimum(self.lengths, limit)
        place = np.arange(lengths.max(initial=0))
        valid = place < lengths[:, None]
        entries = np.where(valid, self.offsets[:-1, None] + place, 0)

        def rectangle(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values[entries] * valid).to(device)

        columns, times_ms, strengths = map(rectangle, (self.columns, self.times_ms, self.strengths))
        return Padded(columns, times_ms, strengths, torch.from_numpy(lengths).to(device))


def joined(parts: Sequence[Histories]) -> Histories:
    """The users of all parts, one part after the other."""
    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    columns, times_ms, strengths = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("columns", "times_ms", "strengths")
    )
    return Histories(offsets, columns, times_ms, strengths)


def without(histories: Histories, place: int) -> Histories:
    """Each row without its interaction at this place, 0 the newest; shorter rows stay as they are."""
    return histories._where(histories._places != place)
