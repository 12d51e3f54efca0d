"""What is remembered of a batch, and when."""

from prometheus_client import CollectorRegistry

from ops.metrics import ScorerMetrics
from stream.scorer.config import ListConfig
from stream.scorer.models import Models
from stream.scorer.scoring import Scoring
from tests.support.scoring import Fixed, World


def test_a_forgotten_user_leaves_a_tombstone_and_no_list(world: World) -> None:
    world.scoring.models = Models(live=Fixed("v1", "abcdefgh"))
    world.serve(world.request("u", "h", new="h"))
    (answer,) = world.serve(world.request("u", "", reason="forget"))
    assert answer.value is None
    assert world.lists.get([(0, b"u")]) == [None]
    assert world.count("recommendations_published_total", variant="control") == 1


def test_lists_count_as_shown_only_once_delivered(world: World) -> None:
    request = world.request("u", "h", new="h")
    world.lists.advance(0, request.offset, request.offset + 1)
    world.scoring.score([request])
    assert world.lists.get([(0, b"u")]) == [None]


def test_popularity_survives_a_restart(world: World) -> None:
    world.serve(world.request("u", "ab", new="ab"))
    world.scoring.save_popularity()
    again = Scoring(ListConfig(3), world.lists, ScorerMetrics(CollectorRegistry()))
    assert [item for item, _ in again.popularity.top((), 5)] == ["b", "a"]
