"""What an event may say about a list, and when it says nothing."""

import pytest

from stream.scorer.prequential import Judgement, ShownList, judge_event
from stream.wire.records import NewInteraction

ARRIVED = 1_000_000
SHOWN = ShownList(published_ms=ARRIVED - 10, variant="control", version="v1", items=("a", "b", "c"))


@pytest.mark.parametrize(
    ("item", "repeat", "shown", "expected"),
    [
        ("a", False, SHOWN, Judgement("hit", 1)),
        ("c", False, SHOWN, Judgement("hit", 3)),
        ("d", False, SHOWN, Judgement("miss", 4)),
        ("a", True, SHOWN, Judgement("repeat", 0)),
        ("a", False, None, Judgement("no_list", 0)),
        ("new", False, SHOWN, Judgement("out_of_vocabulary", 0)),
        ("a", False, ShownList(ARRIVED + 1, "control", "v1", ("a",)), Judgement("no_list", 0)),
        ("a", False, ShownList(ARRIVED - 501, "control", "v1", ("a",)), Judgement("stale_list", 0)),
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
