"""What is remembered of a batch, and when."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from ops.metrics import ScorerMetrics
from state.store import Store
from stream.scorer.config import ListConfig
from stream.scorer.models import Models
from stream.scorer.popularity_file import PopularityFile
from stream.scorer.scoring import Scoring
from tests.stream.scorer.known_models import fixed
from tests.support.scoring import World, names


def test_a_forgotten_user_leaves_a_tombstone_and_no_list(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    world.serve(world.request("u", "h", new="h"))
    (answer,) = world.serve(world.request("u", "", reason="forget"))
    assert answer.value is None
    assert world.last("u") is None
    assert world.count("recommendations_published_total", variant="control") == 1


def test_lists_count_as_shown_only_once_delivered(world: World) -> None:
    world.scoring.score([world.request("u", "h", new="h")])
    assert world.last("u") is None


def test_popularity_survives_a_restart(world: World, tmp_path: Path) -> None:
    world.serve(world.request("u", "ab", new="ab"))
    file = PopularityFile(tmp_path)
    assert file.load() is None
    file.save(world.scoring.popularity.dump())
    metrics = ScorerMetrics(CollectorRegistry())
    again = Scoring(ListConfig(3), world.lists, metrics, saved_popularity=PopularityFile(tmp_path).load())
    assert [item for item, _ in again.popularity.top((), 5)] == ["b", "a"]


def test_popularity_of_the_first_release_is_taken_over_and_its_lists_go(world: World, tmp_path: Path) -> None:
    world.serve(world.request("u", "ab", new="ab"))
    dumped = world.scoring.popularity.dump()
    old = Store(tmp_path / "scorer" / "lists", {"content": "last lists"})
    old.write({b"mpopularity": dumped, b"uforgotten": b"a list"})
    old.close()
    assert PopularityFile(tmp_path / "scorer").load() == dumped
    assert not (tmp_path / "scorer" / "lists").exists()
    assert PopularityFile(tmp_path / "scorer").load() == dumped


class TestOlderHistories:
    """An updater that had lost its partitions sends what it knew before."""

    def test_an_older_history_does_not_replace_the_list_of_a_newer_one(self, world: World) -> None:
        world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
        older = world.request("u", "h", new="h")
        world.serve(world.request("u", "ah", new="a"))
        assert world.serve(older) == []
        assert world.count("stale_refreshes_total") == 1
        assert world.count("event_to_recommendation_seconds_count") == 1

    def test_it_brings_no_forgotten_user_back(self, world: World) -> None:
        before = world.request("u", "ah", new="a")
        world.serve(world.request("u", "h", new="h"))
        world.serve(world.request("u", "", reason="forget"))
        assert world.serve(before) == []
        (answer,) = world.serve(world.request("u", "b", new="b"))  # who returns is known again
        assert answer.value is not None

    def test_neither_does_it_within_a_batch(self, world: World) -> None:
        world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
        older, newer = world.request("u", "h", new="h"), world.request("u", "ah", new="a")
        (answer,) = world.serve(newer, older)
        assert names(answer) == "bcd"
        assert [event.item for event in answer.request.new] == ["a"]

    def test_nor_while_the_newer_list_is_on_its_way(self, world: World) -> None:
        older, newer = world.request("u", "h", new="h"), world.request("u", "ah", new="a")
        assert len(world.scoring.score([newer]).answers) == 1
        assert world.scoring.score([older]).answers == []

    def test_the_same_history_is_answered_again(self, world: World) -> None:
        again = world.request("u", "ah", reason="model")
        world.serve(world.request("u", "ah", new="a"))
        assert len(world.serve(again)) == 1
