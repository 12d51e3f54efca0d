"""What an event may say about a list, and when it says nothing."""

import pytest

from state.store import Store
from stream.scorer.prequential import Judgement, ShownList, judge_event
from stream.scorer.shown_lists import ShownLists
from stream.wire.records import NewInteraction

ARRIVED = 1_000_000
SHOWN = ShownList(published_ms=ARRIVED - 10, offset=7, variant="control", version="v1", items=("a", "b", "c"))


@pytest.mark.parametrize(
    ("item", "repeat", "shown", "expected"),
    [
        ("a", False, SHOWN, Judgement("hit", 1)),
        ("c", False, SHOWN, Judgement("hit", 3)),
        ("d", False, SHOWN, Judgement("miss", 4)),
        ("a", True, SHOWN, Judgement("repeat", 0)),
        ("a", False, None, Judgement("no_list", 0)),
        ("new", False, SHOWN, Judgement("out_of_vocabulary", 0)),
        ("a", False, ShownList(ARRIVED + 1, 7, "control", "v1", ("a",)), Judgement("no_list", 0)),
        ("a", False, ShownList(ARRIVED - 501, 7, "control", "v1", ("a",)), Judgement("stale_list", 0)),
    ],
)
def test_an_event_has_one_outcome(item: str, repeat: bool, shown: ShownList | None, expected: Judgement) -> None:
    event = NewInteraction(item, ARRIVED, repeat)
    known, oldest_ms = {"a", "b", "c", "d"}, ARRIVED - 500
    assert judge_event(event, shown, ARRIVED, known, oldest_ms, hidden=repeat, positive=True) == expected


@pytest.mark.parametrize(("item", "expected"), [("a", Judgement("miss", 4)), ("d", Judgement("negative", 0))])
def test_an_event_against_its_item_counts_only_against_a_list_that_showed_it(item: str, expected: Judgement) -> None:
    event = NewInteraction(item, ARRIVED, False, weight=0.0)
    assert judge_event(event, SHOWN, ARRIVED, None, oldest_ms=0, hidden=False, positive=False) == expected


def test_without_a_vocabulary_any_item_counts() -> None:
    event = NewInteraction("new", 0, False)
    assert judge_event(event, SHOWN, ARRIVED, None, 0, hidden=False, positive=True) == Judgement("miss", 4)


def test_a_list_survives_its_bytes() -> None:
    assert ShownList.decode(SHOWN.encode()) == SHOWN


class TestShownLists:
    @pytest.fixture
    def lists(self, tmp_path):
        lists = ShownLists(Store(tmp_path / "lists", {}))
        yield lists
        lists.close()

    def test_what_was_put_is_there_and_what_was_erased_is_not(self, lists: ShownLists) -> None:
        lists.advance(0, 5, 8)
        lists.put({b"u": SHOWN, b"v": SHOWN}, lists.spans())
        lists.put({b"v": None}, lists.spans())
        assert lists.get([(0, b"u"), (0, b"v"), (0, b"w")]) == [SHOWN, None, None]

    def test_a_replay_is_no_gap(self, lists: ShownLists) -> None:
        lists.advance(0, 5, 8)
        lists.put({b"u": SHOWN}, lists.spans())
        lists.advance(0, 6, 9)
        lists.advance(0, 9, 12)
        assert lists.get([(0, b"u")]) == [SHOWN]

    def test_lists_from_before_another_scorer_answered_are_not_the_last(self, lists: ShownLists) -> None:
        lists.advance(0, 5, 8)
        lists.advance(1, 5, 8)
        lists.put({b"u": SHOWN, b"v": SHOWN}, lists.spans())
        lists.advance(0, 20, 21)  # 8..19 were answered elsewhere
        assert lists.get([(0, b"u"), (1, b"v")]) == [None, SHOWN]

    def test_a_restart_remembers_how_far_it_was(self, lists: ShownLists) -> None:
        lists.advance(0, 5, 8)
        lists.put({b"u": SHOWN}, lists.spans())
        again = ShownLists(lists.store)
        again.advance(0, 8, 9)
        assert again.get([(0, b"u")]) == [SHOWN]
        again = ShownLists(lists.store)
        again.advance(0, 9, 10)
        assert again.get([(0, b"u")]) == [None]

    def test_what_is_still_being_answered_is_not_remembered_as_seen(self, lists: ShownLists) -> None:
        lists.advance(0, 5, 8)
        seen = lists.spans()
        lists.advance(0, 8, 9)  # the next batch, whose lists are not out
        lists.put({b"u": SHOWN}, seen)
        again = ShownLists(lists.store)
        again.advance(0, 9, 10)  # another scorer answered it
        assert again.get([(0, b"u")]) == [None]
