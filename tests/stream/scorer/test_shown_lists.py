"""The newest list that is known of every user, whoever published it."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state import codec
from state.history import EMPTY, Entry, History, merge, merge_entries
from state.store import StoreConfig
from stream.scorer.prequential import ShownList
from stream.scorer.shown_lists import LastList, PartitionLists, ShownLists
from stream.wire.history_version import HistoryVersion
from tests.support.scoring import NOW, open_partition

entries = st.builds(Entry, st.integers(1, 50), st.sampled_from("abcdefgh"), st.sampled_from((0.5, 1.0)))


@st.composite
def histories(draw: st.DrawFn) -> History:
    return merge_entries(EMPTY, draw(st.lists(entries, max_size=20)), 5, draw(st.integers(0, 30)))


@given(histories(), histories())
def test_a_history_never_goes_back(a: History, b: History) -> None:
    both = HistoryVersion.of(codec.read(codec.encode(merge(a, b, 5))))
    assert both >= HistoryVersion.of(codec.read(codec.encode(a)))
    assert both >= HistoryVersion.of(codec.read(codec.encode(b)))


@given(histories(), entries)
def test_what_changes_a_list_of_items_is_a_step_forward(before: History, entry: Entry) -> None:
    after = merge_entries(before, (entry,), 5)
    if (after.items, after.times_ms) != (before.items, before.times_ms):
        first, second = (HistoryVersion.of(codec.read(codec.encode(history))) for history in (before, after))
        assert first < second


def test_a_version_survives_its_header() -> None:
    version = HistoryVersion(1, 2, 3)
    assert HistoryVersion.from_headers([("trace", b"x"), version.header()]) == version
    assert HistoryVersion.from_headers([("history", b"somebody else's")]) is None
    assert HistoryVersion.from_headers([]) is None


def last(newest_ms: int, offset: int, *, forgotten_ms: int = 0, items: str = "abc") -> LastList:
    encoded = ShownList(NOW, "control", "v1", tuple(items)).encode() if items else b""
    return LastList(HistoryVersion(forgotten_ms, newest_ms, newest_ms), offset, encoded)


@pytest.fixture
def lists(tmp_path: Path) -> Iterator[ShownLists]:
    lists = ShownLists(tmp_path, StoreConfig())
    yield lists
    lists.close()


@pytest.fixture
def partition(lists: ShownLists) -> PartitionLists:
    return open_partition(lists, 0)


def known(partition: PartitionLists, user: bytes = b"u") -> LastList | None:
    return partition.get([user])[0]


def test_times_that_no_updater_accepts_make_a_version_that_can_be_stored(partition: PartitionLists) -> None:
    beyond = struct.pack("<2q", 2**63 - 1, 2**63 - 2)
    version = HistoryVersion.of(codec.Columns(0, ("a", "b"), beyond, struct.pack("<2f", 1.0, 1.0)))
    partition.put({b"u": LastList(version, 0, b"list")}, [(0, 1)], 0)
    assert known(partition) == LastList(version, 0, b"list")


class TestOwnLists:
    def test_what_was_put_is_there(self, lists: ShownLists, partition: PartitionLists) -> None:
        partition.put({b"u": last(5, 0), b"v": last(6, 1)}, [(0, 2)], NOW)
        assert partition.get([b"u", b"w", b"v"]) == [last(5, 0), None, last(6, 1)]
        assert lists.get([(0, b"v"), (0, b"w"), (7, b"u")]) == {b"v": last(6, 1)}
        assert partition.store.next_offset == 2

    def test_of_a_forgotten_user_the_time_stays_and_nothing_else(self, partition: PartitionLists) -> None:
        partition.put({b"u": last(5, 0)}, [(0, 1)], NOW)
        partition.put({b"u": last(0, 1, forgotten_ms=9, items="")}, [(1, 2)], NOW)
        gone = known(partition)
        assert gone is not None and gone.shown is None
        assert (gone.version.forgotten_ms, gone.offset) == (9, 1)
        assert [(b"u" in key, value) for key, value in partition.store.items() if key.startswith(b"u")] == []
        partition.purge(before_ms=NOW)
        assert known(partition) is not None
        partition.purge(before_ms=NOW + 1)
        assert known(partition) is None

    def test_offsets_move_on_while_they_follow_upon_each_other(self, partition: PartitionLists) -> None:
        partition.put({b"u": last(5, 0)}, [(0, 1)], NOW)
        partition.put({b"u": last(6, 4)}, [(4, 5)], NOW)  # somebody wrote 1 to 3
        assert known(partition) == last(6, 4)
        assert partition.store.next_offset == 1
        partition.reached(5, NOW)
        assert partition.store.next_offset == 5
        partition.reached(3, NOW)
        partition.put({b"u": last(6, 4)}, [(4, 5)], NOW)  # was read already
        assert partition.store.next_offset == 5


class TestListsOfOthers:
    def test_they_are_taken_in(self, partition: PartitionLists) -> None:
        assert partition.take_in([(b"u", last(5, 0)), (b"v", last(5, 1)), (b"u", last(6, 2))], NOW) == {}
        assert partition.get([b"u", b"v"]) == [last(6, 2), last(5, 1)]

    def test_an_older_list_over_a_newer_one_is_noticed(self, partition: PartitionLists) -> None:
        partition.put({b"u": last(6, 0)}, [(0, 1)], NOW)
        assert partition.take_in([(b"u", last(5, 1))], NOW) == {b"u": last(6, 0)}
        assert known(partition) == last(6, 0)

    def test_also_when_both_are_read_at_once(self, partition: PartitionLists) -> None:
        assert partition.take_in([(b"u", last(6, 0)), (b"u", last(5, 1))], NOW) == {b"u": last(6, 0)}
        assert known(partition) == last(6, 0)

    def test_and_when_the_older_one_is_ours(self, partition: PartitionLists) -> None:
        partition.put({b"u": last(5, 3)}, [(3, 4)], NOW)
        overwritten = partition.take_in([(b"u", last(6, 0))], NOW)
        assert overwritten == {b"u": last(6, 3)}  # published again it lies beyond ours
        assert known(partition) == last(6, 3)

    def test_a_newer_one_behind_it_settles_it(self, partition: PartitionLists) -> None:
        partition.put({b"u": last(6, 0)}, [(0, 1)], NOW)
        assert partition.take_in([(b"u", last(5, 1)), (b"u", last(7, 2))], NOW) == {}

    def test_a_list_over_a_tombstone_is_noticed(self, partition: PartitionLists) -> None:
        gone = last(0, 0, forgotten_ms=9, items="")
        partition.take_in([(b"u", gone)], NOW)
        assert partition.take_in([(b"u", last(5, 1))], NOW) == {b"u": gone}

    def test_reading_them_again_changes_nothing(self, partition: PartitionLists) -> None:
        read = [(b"u", last(5, 0)), (b"u", last(0, 1, forgotten_ms=9, items="")), (b"u", last(20, 2, forgotten_ms=9))]
        assert partition.take_in(read, NOW) == {}
        assert partition.take_in(read, NOW) == {}
        assert known(partition) == last(20, 2, forgotten_ms=9)

    def test_lists_of_the_first_release_count_as_the_newest(self, partition: PartitionLists) -> None:
        partition.take_in([(b"u", last(20, 0, forgotten_ms=9))], NOW)
        old = LastList.without_version(30, 1, last(30, 1).encoded)
        assert partition.take_in([(b"u", old)], NOW) == {}
        assert known(partition) == last(0, 1, forgotten_ms=9)._replace(version=HistoryVersion(9, 30, 0))
        assert partition.take_in([(b"u", LastList.without_version(0, 2, b""))], NOW) == {}
        gone = known(partition)
        assert gone is not None and gone.shown is None


class TestPartitions:
    def test_a_restart_goes_on_where_it_was(self, lists: ShownLists, partition: PartitionLists, tmp_path: Path) -> None:
        partition.put({b"u": last(5, 0)}, [(0, 1)], NOW)
        lists.close()
        again = ShownLists(tmp_path, StoreConfig())
        reopened = again.open(0, {}, 0, 10, 1_000, NOW)
        assert (known(reopened), reopened.store.next_offset) == (last(5, 0), 1)
        again.close()

    def test_a_topic_that_was_made_anew_empties_it(self, lists: ShownLists, partition: PartitionLists) -> None:
        partition.put({b"u": last(5, 0)}, [(0, 1)], NOW)
        lists.close()
        assert known(lists.open(0, {"topic_id": "another"}, 0, 10, 1_000, NOW)) is None

    def test_what_moved_away_for_good_leaves_the_disk(
        self, lists: ShownLists, partition: PartitionLists, tmp_path: Path
    ) -> None:
        partition.put({b"u": last(5, 0)}, [(0, 1)], NOW)
        open_partition(lists, 3)
        assert lists.on_disk == {0, 3}
        lists.destroy(0)
        assert lists.on_disk == {3} and not (tmp_path / "0").exists()
        assert lists.get([(0, b"u")]) == {}
