"""Packs stored histories for a model: which items count, with which strength, and which may not be listed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from model.batch import Histories
from model.items import ItemIndex
from model.ranker import Hidden
from state.codec import Columns, encode, read
from state.history import History
from state.traces import item_hash, trace_columns
from stream.wire.meaning import EventKinds, earlier_columns

__all__ = ["pack", "pack_decoded"]


def pack(
    catalogue: ItemIndex, histories: Sequence[Columns], kinds: EventKinds, now_ms: int
) -> tuple[Histories, Hidden | None]:
    """B histories for a model, and the items that it may not list; None: exactly the items of the packed histories.

    Items that the catalogue does not know are left out, and so are items whose last event is negative.
    """
    if not kinds.plain:
        return _pack_by_meaning(catalogue, histories, kinds, now_ms)
    packed = Histories.pack_bytes(catalogue, ((h.items, h.times_ms, h.strengths) for h in histories))
    if not _strengths_stand(packed, histories):
        return _pack_by_meaning(catalogue, histories, kinds, now_ms)
    traced = [row for row, history in enumerate(histories) if history.traces]
    if not traced:
        return packed, None
    met = Hidden.met(packed)
    left = [_columns(catalogue, trace_columns(histories[row].traces)[1]) for row in traced]
    rows = np.repeat(traced, [len(columns) for columns in left])
    return packed, Hidden(np.concatenate([met.rows, rows]), np.concatenate([met.columns, *left]))


def _strengths_stand(packed: Histories, histories: Sequence[Columns]) -> bool:
    """Whether each stored strength counts as it is, when all kinds have the default meaning. It does not for an item
    whose last event has strength 0, and may not for an item that was met with a larger strength before."""
    least = packed.strengths.min(initial=np.inf)
    if not least > 0:
        return False
    earlier = b"".join([history.earlier for history in histories if history.earlier])
    return not earlier or bool(earlier_columns(earlier)["strength"].max() <= least)


def _pack_by_meaning(
    catalogue: ItemIndex, histories: Sequence[Columns], kinds: EventKinds, now_ms: int
) -> tuple[Histories, Hidden]:
    users = []
    rows: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    for row, history in enumerate(histories):
        meaning = kinds.meaning(history, now_ms)
        positive = meaning.strengths > 0
        times_ms = np.frombuffer(history.times_ms, dtype="<i8")
        items = [item for item, kept in zip(history.items, positive.tolist(), strict=True) if kept]
        users.append((items, times_ms[positive].tobytes(), meaning.strengths[positive].astype("<f4").tobytes()))
        listed = catalogue.columns(history.items)
        columns.append(
            np.concatenate([listed[meaning.hidden & (listed >= 0)], _columns(catalogue, meaning.hidden_hashes)])
        )
        rows.append(np.full(len(columns[-1]), row))
    nothing = np.empty(0, dtype=np.int64)
    hidden = Hidden(np.concatenate([nothing, *rows]), np.concatenate([nothing, *columns]))
    return Histories.pack_bytes(catalogue, users), hidden


def pack_decoded(
    catalogue: ItemIndex, histories: Sequence[History], kinds: EventKinds, now_ms: int
) -> tuple[Histories, Hidden | None]:
    """As `pack`, for histories that are decoded already."""
    if kinds.plain and not any(h.traces or h.earlier or not all(s > 0 for s in h.strengths) for h in histories):
        return Histories.pack(catalogue, ((h.items, h.times_ms, h.strengths) for h in histories)), None
    return pack(catalogue, [read(encode(history)) for history in histories], kinds, now_ms)


def _columns(catalogue: ItemIndex, hashes: np.ndarray) -> np.ndarray:
    """int64 columns of the items with these hashes."""
    if not len(hashes):
        return np.empty(0, dtype=np.int64)
    known, columns = _hashed(catalogue)
    first, after = np.searchsorted(known, hashes), np.searchsorted(known, hashes, side="right")
    return np.concatenate([columns[a:b] for a, b in zip(first, after, strict=True)])


@lru_cache(maxsize=4)  # live, previous and a canary; a catalogue of a million items takes a second, once
def _hashed(catalogue: ItemIndex) -> tuple[np.ndarray, np.ndarray]:
    """(hashes in order, the column of each)."""
    hashes = np.fromiter(map(item_hash, catalogue.ids), dtype=np.uint64, count=len(catalogue))
    order = np.argsort(hashes, kind="stable")
    return hashes[order], order
