"""What a user sees does not depend on the order in which partitions are read."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.wire.history_version import HistoryVersion
from stream.wire.newest import MOVED, erased_until_ms, newest_records


@dataclass(frozen=True)
class Record:
    partition: int
    offset: int
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = 0
    key: bytes | None = b"ann"
    topic: str = field(default="recommendations")


def of(*version: int) -> tuple[tuple[str, bytes], ...]:
    return (HistoryVersion(*version).header(),)


FORGOTTEN = [
    [Record(0, 0, b"before", of(0, 50, 50)), Record(0, 1, None, of(60, 0, 0)), Record(0, 2, b"after", of(60, 61, 61))],
    [Record(1, 0, b"long ago", of(0, 10, 10)), Record(1, 1, None, of(60, 0, 0), timestamp=9)],
    [Record(2, 0, None, of(60, 0, 0), timestamp=9)],
]
MOVING = [
    [Record(0, 0, b"old", of(0, 50, 50)), Record(0, 1, None, ((MOVED, b""),), timestamp=5)],
    [Record(1, 0, b"there", of(0, 50, 50), timestamp=5), Record(1, 1, b"after", of(0, 70, 120), timestamp=6)],
]
BY_AN_EARLIER_RELEASE = [
    [Record(0, 0, b"old"), Record(0, 1, None, timestamp=5)],
    [Record(1, 0, b"there", timestamp=5), Record(1, 1, b"after", of(0, 70, 120), timestamp=6)],
]
GONE = [
    [Record(0, 0, b"before", of(0, 50, 50)), Record(0, 1, None, of(60, 0, 0))],
    [Record(1, 0, None, of(60, 0, 0))],
]


@pytest.mark.parametrize(
    ("partitions", "seen"), [(FORGOTTEN, b"after"), (MOVING, b"after"), (BY_AN_EARLIER_RELEASE, b"after"), (GONE, None)]
)
@given(data=st.data())
def test_in_whatever_order_partitions_are_read(
    partitions: list[list[Record]], seen: bytes | None, data: st.DataObject
) -> None:
    turns = data.draw(st.permutations([number for number, records in enumerate(partitions) for _ in records]))
    left = [iter(records) for records in partitions]
    assert newest_records(next(left[number]) for number in turns)[b"ann"].value == seen


@pytest.mark.parametrize(
    ("headers", "at_home", "erases"),
    [
        (of(60, 0, 0), True, [60]),
        (of(60, 0, 0), False, [60]),
        ((), True, [60, 61]),  # by another hand
        ((), False, []),  # left behind by a move of an earlier release
        (((MOVED, b""),), True, []),
    ],
)
def test_which_lists_a_deletion_erases(
    headers: tuple[tuple[str, bytes], ...], at_home: bool, erases: list[int]
) -> None:
    until_ms = erased_until_ms(Record(0, 0, None, headers), at_home)
    assert [as_of for as_of in (60, 61) if as_of <= until_ms] == erases
