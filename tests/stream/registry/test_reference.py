"""A model brings the bins that its successor's stream is counted into."""

import numpy as np

from state.history import History
from stream.registry.reference import Reference


def history(*items: str) -> History:
    return History(items, tuple(range(len(items), 0, -1)), (1.0,) * len(items))


SCORES = np.linspace(0, 1, 200)[:, None] - np.array([0.0, 0.1])


def test_it_is_the_same_after_the_artifact() -> None:
    catalogue = ("c", "a", "b", "unmet")
    reference = Reference.fit("v1", [history("a", "b"), history("a", "c")], SCORES, None)
    assert Reference.decode(reference.encode(catalogue), catalogue) == reference
    assert reference.counts == {"a": 2, "b": 1, "c": 1}
    assert np.searchsorted(reference.scores.top1, [-1, 0.55, 2], side="right").tolist() == [0, 5, 9]


def test_a_child_keeps_its_parents_item_bins_while_they_name_what_is_met() -> None:
    parent = Reference.fit("v1", [history("a", "b")] * 50, SCORES, None)
    child = Reference.fit("v2", [history("a", "b")] * 98 + [history("new", "b")], SCORES, parent)
    assert (child.epoch, child.bins) == ("v1", parent.bins)
    assert child.counts["new"] == 1
    moved = Reference.fit("v3", [history("new", "b")] * 50, SCORES, child)
    assert moved.epoch == "v3" and moved.bins.of("new") != moved.bins.unknown


def test_lists_that_are_all_short_say_nothing_of_scores() -> None:
    short = np.array([[0.5, -np.inf]])
    assert Reference.fit("v1", [history("a")], short, None).scores == Reference.fit("v2", [], short, None).scores
