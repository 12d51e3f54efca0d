"""Lists of a pilot: marked, made by their variant's settings, judged for it, and no fault of the model."""

from pathlib import Path

import msgspec
import pytest

from stream.pilots.counts import Counts, add_up
from stream.pilots.pilot import CONTROL, ListSettings, Pilot, Stop, Variant, started
from stream.scorer.models import Models
from stream.scorer.prequential import ShownList
from stream.wire.records import InPilot, Recommendation
from tests.stream.scorer.known_models import fixed
from tests.stream.scorer.test_two_stages import by_demand
from tests.support.scoring import NOW, World, names

USERS = [f"u{number}" for number in range(60)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def begin(world: World, lists: ListSettings, share: float = 0.5) -> Pilot:
    pilot = started("p", [Variant("b", lists)], share, 0.05, NOW)
    world.scoring.pilots.current = pilot
    return pilot


def inside(pilot: Pilot) -> tuple[str, str]:
    """A user of variant b and one of control."""
    by_name = {found.name: user for user in USERS if (found := pilot.variant_of(user.encode()))}
    return by_name["b"], by_name[CONTROL]


def tag(answer_value: bytes | None) -> InPilot | None:
    assert answer_value is not None
    return msgspec.json.decode(answer_value, type=Recommendation).pilot


def counts(world: World) -> list[Counts]:
    return world.scoring.pilots.tally.take()


def test_without_a_pilot_nothing_is_marked_and_nothing_counted(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    (answer,) = world.serve(world.request("u", "a", new="a"))
    world.serve(world.request("u", "ba", new="b"))
    assert b"pilot" not in (answer.value or b"")
    assert counts(world) == []


def test_each_list_says_which_variant_it_is_and_the_variant_makes_it(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    world.serve(*[world.request(f"w{n}", "h", new="h") for n in range(3)])
    pilot = begin(world, ListSettings("popularity", list_items=2))
    b, control = inside(pilot)
    one, two = world.serve(world.request(b, "x", new="a"), world.request(control, "a", new="a"))
    assert (names(two), two.variant, tag(two.value)) == ("bcd", "control", InPilot("p", "control", 1))
    assert (names(one)[0], one.variant, one.version, tag(one.value)) == ("h", "popularity", "", InPilot("p", "b", 1))
    assert len(names(one)) <= 2
    assert world.count("fallback_lists_total", reason="cold_user") == 1  # of the list that control would have given


def test_the_models_own_order_is_served_where_a_reranker_orders_all_others(world: World) -> None:
    model = fixed("v1", "abcdefgh")
    model.reranker = by_demand()
    world.scoring.models = Models(live=model)
    world.serve(*[world.request(f"w{n}", "z", new="z") for n in range(3)], world.request("w9", "h", new="h"))
    b, control = inside(begin(world, ListSettings("model")))
    one, two = world.serve(world.request(b, "a", new="a"), world.request(control, "a", new="a"))
    assert (names(one), one.version, one.variant) == ("bcd", "v1", "control")
    assert names(two)[:2] == "zh"


def test_an_outcome_counts_for_the_variant_that_made_the_list_and_for_the_list_of_control(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    world.serve(*[world.request(f"w{n}", "h", new="h") for n in range(3)])
    b, control = inside(begin(world, ListSettings("popularity")))
    world.serve(world.request(b, "a", new="a"), world.request(control, "a", new="a"))
    assert counts(world)[0].users == {"b": 1, CONTROL: 1}
    # b saw h (and a, which it has); control's list was bcd.
    world.serve(world.request(b, "ha", new="h"), world.request(control, "ca", new="c"))
    totals = add_up(counts(world))[1]
    assert (totals.ranks["b"][:, 1].sum(), totals.ranks["b"].sum()) == (1, 1)
    assert (totals.twins["b"][:, 0].sum(), totals.paired["b"][:, 1].sum()) == (1, 1)
    assert (totals.ranks[CONTROL][:, 2].sum(), totals.ranks[CONTROL].sum()) == (1, 1)
    assert totals.users == {"b": 1, CONTROL: 1}  # nobody twice


def test_what_no_model_knows_is_a_miss_of_every_variant(world: World) -> None:
    """The model's own lists are not asked about it elsewhere; between variants that would be a difference of itself."""
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    users = inside(begin(world, ListSettings("popularity")))
    world.serve(*[world.request(user, "a", new="a") for user in users])
    world.serve(*[world.request(user, "za", new="z") for user in users])
    totals = add_up(counts(world))[1]
    assert [int(totals.ranks[name][:, 0].sum()) for name in ("b", CONTROL)] == [1, 1]


def test_events_that_say_nothing_about_a_list_count_nowhere(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    b, _ = inside(begin(world, ListSettings("popularity")))
    world.serve(world.request(b, "a", new="a"))
    counts(world)
    world.serve(world.request(b, "ba", new="b", weight=0.0))
    assert counts(world) == []


def test_the_monitor_is_told_of_the_list_that_control_would_have_shown(world: World) -> None:
    """Popularity's bad list is no fault of the live model, and its good one no merit."""
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    world.serve(*[world.request(f"w{n}", "h", new="h") for n in range(3)])
    b, _ = inside(begin(world, ListSettings("popularity")))
    world.serve(world.request(b, "a", new="a"))
    world.windows()
    world.serve(world.request(b, "ca", new="c"))  # in control's list, not among the popular
    assert world.windows()["against_popularity v1"] == [0, 0, 1, 0]
    assert world.count("prequential_events_total", variant="control", outcome="hit") == 1


def test_users_of_the_canary_are_in_no_variant(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcd"), canary=fixed("v2", "dcba"), canary_share=1.0)
    begin(world, ListSettings("popularity"))
    answers = world.serve(*[world.request(user, "a", new="a") for user in USERS[:5]])
    assert {(answer.variant, tag(answer.value)) for answer in answers} == {("treatment", None)}


def test_a_stopped_variant_gives_its_users_the_lists_of_control_and_counts_them_no_more(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    pilot = started(
        "p", [Variant("b", ListSettings("popularity")), Variant("c", ListSettings("model"))], 1.0, 0.05, NOW
    )
    user = next(u for u in USERS if (found := pilot.variant_of(u.encode())) and found.name == "b")
    world.scoring.pilots.current = msgspec.structs.replace(pilot, stops={"b": Stop("harm", NOW)})
    (answer,) = world.serve(world.request(user, "a", new="a"))
    assert (names(answer), tag(answer.value)) == ("bcd", None)


def test_a_user_is_counted_again_at_the_next_stage_and_outcomes_go_to_the_stage_of_the_list(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    pilot = begin(world, ListSettings("popularity"))
    b, _ = inside(pilot)
    world.serve(world.request(b, "a", new="a"))
    world.scoring.pilots.current = pilot.at(1.0, NOW)
    world.serve(world.request(b, "ba", new="b"))
    totals = add_up(counts(world))
    assert totals[1].users == totals[2].users == {"b": 1}
    assert totals[1].ranks["b"].sum() == 1
    assert totals[2].ranks == {}


def test_another_start_of_the_scorer_gives_the_same_variant_and_knows_who_was_counted(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    pilot = begin(world, ListSettings("popularity"))
    before = world.serve(*[world.request(user, "a", new="a") for user in USERS])
    world.configure(world.scoring.config)
    world.scoring.models, world.scoring.pilots.current = Models(live=fixed("v1", "abcdefgh")), pilot
    after = world.serve(*[world.request(user, "ba", new="b") for user in USERS])
    assert [tag(answer.value) for answer in before] == [tag(answer.value) for answer in after]
    (record,) = counts(world)
    assert record.users == {}


def test_a_list_that_another_scorer_kept_before_there_were_pilots_is_read() -> None:
    old = msgspec.msgpack.encode((NOW, "control", "v1", ("a", "b"), (2.0, 1.0), "v0", ("c",), ""))
    shown = ShownList.decode(old)
    assert (shown.pilot, shown.shadow, shown.without_pilot()) == (None, ("c",), shown)
