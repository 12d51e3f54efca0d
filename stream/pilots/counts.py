"""The counts of a pilot: ranks that users' next items had in their lists, by stage, variant and bucket of users.

A scorer writes its running totals, and a later record of the same scorer, pilot and stage replaces the earlier one, so
repeats and replays of the topic change nothing. The sum over scorers does not depend on how users are divided among
them. An outcome is counted when its list is replaced. A scorer that is killed loses its counts since the last write
(some seconds, for all variants alike), and counts nothing twice, because an event is not compared with a newer list.

Legend: R ranks and one column before them for misses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
import numpy as np

from stream.pilots.pilot import BUCKETS

__all__ = ["RANKS", "Counts", "PilotTally", "StageTotals", "add_up"]

RANKS = 10  # that are counted separately; an item at a later rank is a miss
_SHAPE = BUCKETS, RANKS + 1

Tables = dict[str, np.ndarray]  # by variant: int64 [BUCKETS, 1 + RANKS]


class Counts(msgspec.Struct, array_like=True, frozen=True):
    """One scorer's totals of one stage. Tables are flat."""

    worker: str  # new with every start of a process
    pilot: str
    stage: int
    users: dict[str, int]  # by variant: users who got a first list
    ranks: dict[str, list[int]]  # by variant: all outcomes
    # By variant: those outcomes for which the rank in control's list is known as well.
    paired: dict[str, list[int]]
    twins: dict[str, list[int]]  # the same outcomes by their ranks in control's list

    def encode(self) -> bytes:
        return _encoder.encode(self)

    @staticmethod
    def decode(value: bytes) -> Counts:
        """Raises `msgspec.DecodeError` for anything `encode` did not write."""
        found = _decoder.decode(value)
        for tables in (found.ranks, found.paired, found.twins):
            if any(len(table) != BUCKETS * (RANKS + 1) for table in tables.values()):
                raise msgspec.ValidationError("a table of another size")
        return found


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Counts)


@dataclass
class StageTotals:
    users: dict[str, int] = field(default_factory=dict)
    ranks: Tables = field(default_factory=dict)
    paired: Tables = field(default_factory=dict)
    twins: Tables = field(default_factory=dict)

    def table(self, tables: Tables, variant: str) -> np.ndarray:
        """The table of a variant; at first it has only zeros."""
        found = tables.get(variant)
        if found is None:
            found = tables[variant] = np.zeros(_SHAPE, dtype=np.int64)
        return found


class PilotTally:
    """The counts of one scorer. Single-threaded."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._totals: dict[tuple[str, int], StageTotals] = {}  # by pilot and stage
        self._changed: set[tuple[str, int]] = set()

    def user(self, pilot: str, stage: int, variant: str) -> None:
        """Count a user who got the first list of a stage."""
        users = self._of(pilot, stage).users
        users[variant] = users.get(variant, 0) + 1

    def outcome(self, pilot: str, stage: int, variant: str, bucket: int, rank: int, twin: int | None = None) -> None:
        """Count an event whose item had this rank in the list shown, and the rank `twin` in control's list; a rank
        beyond `RANKS` is a miss."""
        totals = self._of(pilot, stage)
        totals.table(totals.ranks, variant)[bucket, _column(rank)] += 1
        if twin is not None:
            totals.table(totals.paired, variant)[bucket, _column(rank)] += 1
            totals.table(totals.twins, variant)[bucket, _column(twin)] += 1

    def _of(self, pilot: str, stage: int) -> StageTotals:
        self._changed.add((pilot, stage))
        return self._totals.setdefault((pilot, stage), StageTotals())

    def take(self) -> list[Counts]:
        """Totals that changed since the last call."""
        taken = [
            Counts(self._worker, *key, dict(totals.users), *map(_flat, (totals.ranks, totals.paired, totals.twins)))
            for key in sorted(self._changed)
            for totals in (self._totals[key],)
        ]
        self._changed.clear()
        return taken


def add_up(records: Iterable[Counts]) -> dict[int, StageTotals]:
    """The totals by stage. `records` are the newest ones of every scorer."""
    stages: dict[int, StageTotals] = {}
    for record in records:
        totals = stages.setdefault(record.stage, StageTotals())
        for variant, users in record.users.items():
            totals.users[variant] = totals.users.get(variant, 0) + users
        for into, tables in (
            (totals.ranks, record.ranks),
            (totals.paired, record.paired),
            (totals.twins, record.twins),
        ):
            for variant, table in tables.items():
                totals.table(into, variant)[:] += np.asarray(table, dtype=np.int64).reshape(_SHAPE)
    return dict(sorted(stages.items()))


def _column(rank: int) -> int:
    return rank if rank <= RANKS else 0


def _flat(tables: Tables) -> dict[str, list[int]]:
    return {variant: table.ravel().tolist() for variant, table in tables.items()}
