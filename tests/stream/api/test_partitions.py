"""A copy of a partition is shown only while it is known to be complete."""

import math
from pathlib import Path

import pytest
from kafka import TopicPartition

from state.store import Store
from stream.api.partitions import Copies, NotHere, NotLevel

TP = TopicPartition("recommendations", 3)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def copies(tmp_path: Path, clock: Clock) -> Copies:
    copies = Copies(stale_seconds=5.0, clock=clock)
    copies.add(TP, Store(tmp_path / "3", {"topic_id": "x"}))
    copies.write(TP, {b"ann": b"list"}, next_offset=7, now_ms=1)
    return copies


def test_nothing_is_shown_before_the_copy_is_known_to_be_complete(copies: Copies, clock: Clock) -> None:
    with pytest.raises(NotLevel, match="never"):
        copies.read(TP, b"ann")
    copies.confirm(TP, clock.now)
    assert copies.read(TP, b"ann") == b"list" and copies.read(TP, b"bob") is None
    copies.close()


def test_a_process_that_slept_shows_nothing_until_it_has_read_on(copies: Copies, clock: Clock) -> None:
    copies.confirm(TP, clock.now)
    clock.now += 4.9
    assert copies.read(TP, b"ann") == b"list" and copies.level() == {TP}
    clock.now += 0.2
    with pytest.raises(NotLevel, match=r"5\.1 s ago"):
        copies.read(TP, b"ann")
    assert copies.level() == frozenset() and copies.behind_seconds() == pytest.approx(5.1)
    copies.confirm(TP, clock.now)
    assert copies.read(TP, b"ann") == b"list"
    copies.close()


def test_an_older_confirmation_takes_nothing_back(copies: Copies, clock: Clock) -> None:
    copies.confirm(TP, clock.now)
    copies.confirm(TP, clock.now - 50)
    assert copies.read(TP, b"ann") == b"list"
    copies.close()


def test_what_moved_away_is_not_here_and_its_folder_is_free(copies: Copies, tmp_path: Path) -> None:
    copies.drop(TP)
    copies.drop(TP)
    with pytest.raises(NotHere):
        copies.read(TP, b"ann")
    assert copies.behind_seconds() == 0 and not math.isnan(copies.behind_seconds())
    store = Store(tmp_path / "3", {"topic_id": "x"})
    assert store.get_many([b"ann"]) == [b"list"] and store.next_offset == 7
    store.close()
