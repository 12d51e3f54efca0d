"""Which of a user's records on `recommendations` says what the user sees, where several partitions hold some.

A user lives in one partition. Others may hold a list from before a move, and a deletion: a wish to be forgotten goes
to all of them, and each is read and answered at its own pace. So a deletion of one partition may be read, and even
written, after a newer list of another, and must not stand for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from stream.wire.history_version import HistoryVersion
from stream.wire.records import InputRecord

__all__ = ["MOVED", "erased_until_ms", "newest_records"]

MOVED = "moved"
"""Header of a deletion that forgets nobody: the user lives in another partition now."""

_NEVER, _FOREVER = -1, 2**63 - 1


def erased_until_ms(deletion: InputRecord, at_home: bool) -> int:
    """The lists that a deletion erases are those of no newer event than this. `at_home`: it lies in its user's
    partition, or nobody was ever moved. One without a version is of an earlier release or of another hand: at home it
    erases whatever there is, elsewhere it is what a move left behind."""
    version = HistoryVersion.from_headers(deletion.headers)
    if version is not None:
        return version.forgotten_ms
    moved = any(name == MOVED for name, _ in deletion.headers)
    return _FOREVER if at_home and not moved else _NEVER


def _stands_over(record: InputRecord, before: InputRecord) -> bool:
    """Whether `record`, which was read after `before`, a record of the same user, is what the user sees."""
    if record.partition == before.partition:
        return True
    version, known = (HistoryVersion.from_headers(one.headers) for one in (record, before))
    if version is not None and known is not None:
        return version >= known
    for one, other in ((record, before), (before, record)):
        if one.value is None and other.value is not None and HistoryVersion.from_headers(one.headers) is None:
            return one is before  # a deletion that a move left behind
    return record.timestamp >= before.timestamp


def newest_records(records: Iterable[InputRecord]) -> dict[bytes, InputRecord]:
    """What each user sees, deletions included, of records that were read partition by partition or mixed."""
    newest: dict[bytes, InputRecord] = {}
    for record in records:
        if record.key is not None and (record.key not in newest or _stands_over(record, newest[record.key])):
            newest[record.key] = record
    return newest
