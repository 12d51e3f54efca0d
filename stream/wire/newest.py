"""Finds a user's newest record on `recommendations`, where several partitions hold records of the user.

A user belongs to one partition. Others may hold a list from before a move, and a deletion: a request to forget a user
goes to all partitions, and each is read and answered at its own pace. So the deletion in one partition may be read, and
even written, after a newer list in another partition, and must not replace that list.
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
    """The event time up to which a deletion erases lists. `at_home`: the deletion lies in its user's partition, or no
    user was ever moved. A deletion without a version is of an earlier release or of another program. At home it erases
    every list. Elsewhere it was left behind by a move and erases nothing."""
    version = HistoryVersion.from_headers(deletion.headers)
    if version is not None:
        return version.forgotten_ms
    moved = any(name == MOVED for name, _ in deletion.headers)
    return _FOREVER if at_home and not moved else _NEVER


def _stands_over(record: InputRecord, before: InputRecord) -> bool:
    """Whether `record` is newer than `before`, a record of the same user that was read earlier."""
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
    """The newest record of each user, deletions included. The partitions may have been read in any order."""
    newest: dict[bytes, InputRecord] = {}
    for record in records:
        if record.key is not None and (record.key not in newest or _stands_over(record, newest[record.key])):
            newest[record.key] = record
    return newest
