"""What the settings say of events reaches lists, verdicts and popularity."""

from pathlib import Path

import pytest

from state import codec
from state.history import EMPTY, Entry, merge_entries
from stream.scorer.config import ListConfig
from stream.scorer.models import Models
from stream.scorer.requests import Request
from stream.wire.meaning import EventKind, EventKinds
from stream.wire.records import NewInteraction, Refresh
from tests.stream.scorer.known_models import fixed
from tests.support.scoring import NOW, World, names

DAY = 86_400_000
KINDS = EventKinds(
    {
        "view": EventKind(strength=0.2, hides="never"),
        "buy": EventKind(hides="1d"),
        "return": EventKind(negative=True),
    }
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "lists")
    world.configure(ListConfig(3, events=KINDS))
    world.scoring.models = Models(live=fixed("v1", "abcdef"))
    return world


def request(world: World, *events: tuple[str, int, str], new: int = 1, limit: int = 200) -> Request:
    """The refresh after these events (item, time, kind), oldest first, of which the last `new` just came."""
    history = merge_entries(EMPTY, [Entry(time, item, 1.0, kind) for item, time, kind in events], limit)
    met = [item for item, _, _ in events]
    news = tuple(
        NewInteraction(item, time, item in met[:place], 1.0, kind)
        for place, (item, time, kind) in enumerate(events)
        if place >= len(events) - new
    )
    world.offset += 1
    value = Refresh("event", world.now_ms, news, codec.for_reading(codec.encode(history))).encode()
    return Request.decode(0, world.offset, b"u", value)


def test_an_item_comes_back_when_its_time_is_over(world: World) -> None:
    bought = ("a", NOW - 3 * DAY, "buy")
    soon = world.serve(request(world, bought, ("f", NOW - 3 * DAY + 1, "view")))
    later = world.serve(request(world, bought, ("f", NOW, "view")))
    assert [names(answer) for answer in (*soon, *later)] == ["bcd", "abc"]


def test_a_repeat_that_could_stand_in_the_list_is_judged(world: World) -> None:
    first = ("a", NOW - 3 * DAY, "buy")
    world.serve(request(world, first, ("f", NOW - 1, "view")))
    world.serve(request(world, first, ("f", NOW - 1, "view"), ("a", NOW, "buy")))
    assert world.count("prequential_events_total", variant="control", outcome="hit") == 1
    assert world.count("prequential_events_total", variant="control", outcome="repeat") == 0


def test_a_repeat_that_was_hidden_is_no_miss(world: World) -> None:
    first = ("a", NOW - 1000, "buy")
    world.serve(request(world, first))
    world.serve(request(world, first, ("a", NOW, "buy")))
    assert world.count("prequential_events_total", variant="control", outcome="repeat") == 1
    assert world.count("prequential_events_total", variant="control", outcome="miss") == 0


def test_a_return_hides_its_item_is_no_hit_and_raises_nothing(world: World) -> None:
    bought = ("a", NOW - 9 * DAY, "buy")
    world.serve(request(world, bought, ("b", NOW - 8 * DAY, "buy"), ("f", NOW - 1, "view")))
    before = dict(world.scoring.popularity.top((), 10))
    (answer,) = world.serve(request(world, bought, ("b", NOW - 8 * DAY, "buy"), ("a", NOW, "return")))
    assert "a" not in names(answer)
    assert world.count("prequential_events_total", variant="control", outcome="hit") == 0
    assert world.count("prequential_events_total", variant="control", outcome="miss") == 1
    world.scoring.popularity.refresh()
    assert all(count <= before.get(item, 0.0) for item, count in world.scoring.popularity.top((), 10))


def test_what_left_the_history_stays_hidden(world: World) -> None:
    world.configure(ListConfig(3))
    world.scoring.models = Models(live=fixed("v1", "abcdef"))
    events = [(item, NOW - 9 * DAY + place, "") for place, item in enumerate("abef")]
    (answer,) = world.serve(request(world, *events, limit=2))
    assert names(answer) == "cd"


def test_popularity_counts_a_view_less_than_a_purchase(world: World) -> None:
    world.scoring.models = Models()
    world.serve(request(world, ("x", NOW, "view"), ("x", NOW + 1, "view"), ("y", NOW + 2, "buy"), new=3))
    world.scoring.popularity.refresh()
    assert [item for item, _ in world.scoring.popularity.top((), 2)] == ["y", "x"]
