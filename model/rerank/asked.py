"""Users at the moments for which lists are made.

Legend: B users, L places of a history, place 0 the newest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.batch import Histories
from model.ranker import Hidden

__all__ = ["VISIT_MS", "Asked", "earlier_places"]

VISIT_MS = 6 * 3_600_000  # interactions closer than this belong to one visit
_MOMENTS = 10  # newest moments of a user whose items are used in pairs, for counting and for ranking
_PLACES = 40  # most items of these moments


@dataclass(frozen=True)
class Asked:
    """Histories in the columns of `StreamCounts`, padded, and the time that each user is asked at."""

    columns: np.ndarray  # int64 [B, L], -1 where padded or never counted
    times_ms: np.ndarray  # int64 [B, L], 0 where padded
    lengths: np.ndarray  # int64 [B]
    now_ms: np.ndarray  # int64 [B]
    hidden: Hidden  # what may not be listed, in the columns of the counts
    times: np.ndarray | None = None  # float32 [B, L] interactions with each item; None: one with each
    gaps_ms: np.ndarray | None = None  # float32 [B, L] mean time between them, NaN with one

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def of(cls, histories: Histories, now_ms: np.ndarray, hidden: Hidden | None = None) -> Asked:
        """From packed histories whose columns are those of the counts. By default, the items that a user has met are
        hidden."""
        lengths = histories.lengths
        place = np.arange(max(int(lengths.max(initial=0)), 1))
        valid = place < lengths[:, None]
        entries = np.where(valid, histories.offsets[:-1, None] + place, 0)
        columns = np.where(valid, np.append(histories.columns, -1)[entries], -1)
        times_ms = np.where(valid, np.append(histories.times_ms, 0)[entries], 0)
        return cls(columns, times_ms, lengths, now_ms, Hidden.met(histories) if hidden is None else hidden)


def earlier_places(times_ms: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(moments int64 [B, L], counted bool [B, L]): how many moments lie between each place of histories and now, and
    whether the place is recent enough for its pairs to count.

    Interactions of the same time are one moment, such as a basket; the order of its items has no meaning.
    """
    place = np.arange(times_ms.shape[1])
    changes = np.zeros(times_ms.shape, dtype=np.int64)
    changes[:, 1:] = times_ms[:, 1:] != times_ms[:, :-1]
    moments = np.cumsum(changes, axis=1)
    counted = (place < np.minimum(lengths, _PLACES)[:, None]) & (moments < _MOMENTS)
    return moments, counted
