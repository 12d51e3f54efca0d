"""What new events say about the list before them."""

import numpy as np
import pytest

from stream.scorer.models import Models
from stream.scorer.requests import Request
from stream.wire.records import NewInteraction
from tests.stream.scorer.known_models import fixed
from tests.support.scoring import NOW, World


def test_an_event_is_asked_of_the_list_before_it(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    world.serve(world.request("u", "h", new="h"))  # shown: abc
    world.serve(world.request("u", "bh", new="b"))  # rank 2; shown: acd
    world.serve(world.request("u", "gbh", new="g"))  # not shown
    outcomes = {
        outcome: world.count("prequential_events_total", variant="control", outcome=outcome)
        for outcome in ("hit", "miss", "no_list")
    }
    assert outcomes == {"hit": 1, "miss": 1, "no_list": 0}
    assert world.count("prequential_events_total", variant="popularity", outcome="no_list") == 1
    ranks = "prequential_rank_bucket"
    assert world.count(ranks, variant="control", slot="live", le="1.0") == 0
    assert world.count(ranks, variant="control", slot="live", le="3.0") == 1
    assert world.count(ranks, variant="control", slot="live", le="50.0") == 1
    assert world.count("prequential_rank_count", variant="control", slot="live") == 2
    assert world.count("prequential_ndcg_total", variant="control", slot="live") == pytest.approx(1 / np.log2(3))


def test_popularity_answers_the_same_event_from_the_same_moment(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    world.serve(*(world.request(f"w{n}", "gh", new="g") for n in range(5)))
    world.serve(world.request("u", "h", new="h"))
    world.serve(world.request("u", "gh", new="g"))  # popularity had it first, the model not at all
    rank = {"slot": "live", "variant": "popularity", "le": "1.0"}
    assert world.count("prequential_rank_bucket", **rank) == 1
    assert world.count("prequential_events_total", variant="popularity", outcome="hit") == 1
    assert world.count("prequential_events_total", variant="control", outcome="miss") == 1
    world.serve(world.request("u", "egh", new="e"))  # nobody met it before: its own event must not help
    assert world.count("prequential_events_total", variant="popularity", outcome="miss") == 1


def test_only_a_list_from_before_the_event_counts(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    early = world.request("u", "ah", new="a")  # arrived before the list below was published
    world.serve(world.request("u", "h", new="h"))
    world.serve(early)
    assert world.count("prequential_events_total", variant="control", outcome="no_list") == 1


def test_a_list_speaks_for_the_model_that_made_it(world: World) -> None:
    first, second = fixed("v1", "abcdefgh"), fixed("v2", "hgfedcba")
    world.scoring.models = Models(live=first)
    world.serve(world.request("u", "h", new="h"))
    world.scoring.models = Models(live=second, previous=first)
    world.serve(world.request("u", "ah", new="a"))
    assert world.count("prequential_rank_count", variant="control", slot="previous") == 1
    assert world.count("prequential_rank_count", variant="control", slot="live") == 0


def test_repeats_and_unknown_items_are_not_held_against_the_model(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    world.serve(world.request("u", "h", new="h"))
    world.serve(world.request("u", "xh", new="x"))
    again = world.request("u", "hx")
    again = Request(0, again.offset, b"u", again.history, "event", (NewInteraction("h", NOW, True),), (NOW + 99,))
    world.serve(again)
    assert world.count("prequential_events_total", variant="control", outcome="out_of_vocabulary") == 1
    assert world.count("prequential_events_total", variant="control", outcome="repeat") == 1
    assert world.count("prequential_rank_count", variant="control", slot="live") == 0


def test_an_event_against_an_item_is_no_hit_of_any_list(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    world.serve(*(world.request(f"w{n}", "ah", new="a") for n in range(5)))  # a is popular
    world.serve(world.request("u", "h", new="h"))  # shown: abc
    before = world.count("prequential_events_total", variant="popularity", outcome="hit")
    world.serve(world.request("u", "ah", new="a", weight=0.0))
    assert world.count("prequential_events_total", variant="control", outcome="hit") == 0
    assert world.count("prequential_events_total", variant="control", outcome="miss") == 1
    assert world.count("prequential_events_total", variant="popularity", outcome="hit") == before
    assert world.count("prequential_ndcg_total", variant="control", slot="live") == 0
    world.serve(world.request("u", "gah", new="g", weight=0.0))  # not shown: nothing speaks against the list
    assert world.count("prequential_events_total", variant="control", outcome="miss") == 1
    assert world.count("prequential_events_total", variant="control", outcome="negative") == 1


def test_an_event_against_an_item_does_not_make_it_popular(world: World) -> None:
    world.serve(world.request("u", "a", new="a"))
    world.serve(*(world.request(f"w{n}", "b", new="b", weight=0.0) for n in range(5)))
    world.scoring.popularity.refresh()
    assert [item for item, _ in world.scoring.popularity.top((), 5)] == ["a"]
