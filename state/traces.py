"""Traces: the items that a user met before the newest ones, which a history keeps; each trace has eight bytes.

    row     bits 63..48  day of the newest such interaction, since 1970 UTC
            bits 47..16  CRC-32 of the item's UTF-8
            bits 15..0   CRC-32 of the kind's UTF-8, its lower half
    traces  the newest `TRACES` rows, one per item and kind, little-endian, largest first

A trace hides an item long after its interaction left the history. Two items with the same CRC share a trace. For a user
with the most traces, an item that was never met counts as met with a probability of TRACES / 2^32, about one in ten
million.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

__all__ = ["TRACES", "add_traces", "forget_traces", "item_hash", "join_traces", "kind_hash", "trace_columns"]

TRACES = 500

_DAY_MS = 86_400_000
_KEY = np.uint64(0xFFFF_FFFF_FFFF)
_DAY_SHIFT = np.uint64(48)


def item_hash(item: str) -> int:
    """The 32 bits of an item in a trace."""
    return zlib.crc32(item.encode())


def kind_hash(kind: str) -> int:
    """The 16 bits of a kind in a trace."""
    return zlib.crc32(kind.encode()) & 0xFFFF


def add_traces(traces: bytes, met: Sequence[tuple[int, str, str]], forgotten_ms: int) -> bytes:
    """`traces` joined with interactions (time in ms, item, kind).

    Interactions on the day of forgetting, or on an earlier day, leave no trace.
    """
    first = forgotten_ms // _DAY_MS + 1 if forgotten_ms else 0
    rows = [
        min(time_ms // _DAY_MS, 0xFFFF) << 48 | item_hash(item) << 16 | kind_hash(kind)
        for time_ms, item, kind in met
        if time_ms // _DAY_MS >= first
    ]
    if len(rows) == 1:
        return _add_row(traces, rows[0])
    return join_traces(traces, np.array(rows, dtype="<u8").tobytes()) if rows else traces


def _add_row(traces: bytes, row: int) -> bytes:
    """`join_traces` for one row: every interaction of a full history adds one, and arrays are several times slower."""
    added = row.to_bytes(8, "little")
    same = _find(traces, added[:6])
    if same >= 0:
        if int.from_bytes(traces[same : same + 8], "little") >= row:
            return traces
        traces = traces[:same] + traces[same + 8 :]
    low, high = 0, len(traces) // 8  # rows before `low` are larger, those from `high` on smaller
    while low < high:
        middle = (low + high) // 2
        if int.from_bytes(traces[8 * middle : 8 * middle + 8], "little") > row:
            low = middle + 1
        else:
            high = middle
    return (traces[: 8 * low] + added + traces[8 * low :])[: 8 * TRACES]


def _find(traces: bytes, key: bytes) -> int:
    """Where the row of an item and kind begins; -1 when there is none. The key is the row without its day."""
    place = traces.find(key)
    while place % 8 and place >= 0:  # the same bytes across two rows
        place = traces.find(key, place + 1)
    return place


def join_traces(a: bytes, b: bytes) -> bytes:
    """All rows of `a` and `b`, with the newest day of each item and kind; the newest `TRACES` of these."""
    rows = np.frombuffer(a + b, dtype="<u8")
    rows = np.sort(rows)[::-1]
    keys, first = np.unique(rows & _KEY, return_index=True)  # the first of each key is its newest day
    if len(keys) < len(rows):
        rows = rows[np.sort(first)]
    return rows[:TRACES].tobytes()


def forget_traces(traces: bytes, forgotten_ms: int) -> bytes:
    """The traces without those of the day of forgetting and of earlier days."""
    if not traces or not forgotten_ms:
        return traces
    rows = np.frombuffer(traces, dtype="<u8")
    return rows[(rows >> _DAY_SHIFT) > np.uint64(forgotten_ms // _DAY_MS)].tobytes()


def trace_columns(traces: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(days, item hashes, kind hashes), newest first, each [n] as uint64."""
    rows = np.frombuffer(traces, dtype="<u8")
    return rows >> _DAY_SHIFT, (rows >> np.uint64(16)) & np.uint64(0xFFFF_FFFF), rows & np.uint64(0xFFFF)
