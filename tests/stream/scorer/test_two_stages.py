"""A model with a reranker lists what is wanted now, of what may be listed; one without is served in its own order."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.recommend import Recommender
from model.rerank.counts import CountsConfig
from model.rerank.features import USER_FEATURES, feature_names, start_weights
from model.rerank.reranker import Reranker
from stream.scorer.config import ListConfig
from stream.scorer.counts_file import CountsFile
from stream.scorer.models import Models
from stream.wire.examples_topic import decode_examples, encode_examples
from stream.wire.items import ItemRecord
from tests.stream.scorer.known_models import fixed
from tests.support.scoring import World, names


def by_demand() -> Reranker:
    """Orders by what everybody wants, whatever the model says."""
    return Reranker(torch.from_numpy(start_weights(CountsConfig(), 5)), len(USER_FEATURES), hidden=3)


def reranked() -> Recommender:
    model = fixed("v1", "abcdefgh")
    model.reranker = by_demand()
    return model


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_began_after_the_model_is_listed_at_once(world: World) -> None:
    world.scoring.models = Models(live=reranked())
    world.serve(*[world.request(f"w{n}", "z", new="z") for n in range(3)], world.request("w9", "h", new="h"))
    (answer,) = world.serve(world.request("u", "a", new="a"))
    assert (names(answer)[:2], answer.variant, answer.version) == ("zh", "control", "v1")


def test_without_a_reranker_the_models_own_order_is_served(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    world.serve(*[world.request(f"w{n}", "z", new="z") for n in range(3)])
    (answer,) = world.serve(world.request("u", "a", new="a"))
    assert names(answer) == "bcd"


def test_a_user_of_items_that_no_model_knows_gets_a_list(world: World) -> None:
    world.scoring.models = Models(live=reranked())
    world.serve(world.request("v", "y", new="y"))
    (answer,) = world.serve(world.request("u", "z", new="z"))
    assert (names(answer)[:1], answer.variant) == ("y", "control")


def test_what_may_not_be_listed_is_not(world: World) -> None:
    world.scoring.models = Models(live=reranked())
    world.serve(*[world.request(f"w{n}", "z", new="z") for n in range(3)], world.request("w9", "h", new="h"))
    records = {"z": ItemRecord("z", available=False), "h": ItemRecord("h", hide_from=("u",))}
    world.scoring.catalogue.put(records, world.now_ms)
    one, other = world.serve(world.request("u", "a", new="a"), world.request("v", "a", new="a"))
    assert not set("zh") & set(names(one))
    assert names(other)[0] == "h"
    world.scoring.catalogue.put({"z": None}, world.now_ms)
    assert names(world.serve(world.request("x", "a", new="a"))[0])[0] == "z"


def test_an_event_of_an_item_that_no_model_knows_is_judged(world: World) -> None:
    world.scoring.models = Models(live=reranked())
    world.serve(world.request("w", "z", new="z"))
    world.serve(world.request("u", "a", new="a"))
    world.serve(world.request("u", "az", new="z"))
    assert world.count("prequential_events_total", variant="control", outcome="hit") == 1


@pytest.mark.parametrize("live", [None, fixed("v1", "abcdefgh"), reranked()], ids=["no model", "model", "reranker"])
def test_lists_become_examples_with_what_came_next(world: World, live: Recommender | None) -> None:
    world.scoring.models = Models(live=live)
    world.serve(world.request("w", "bz", new="bz"))
    for user in "uv":
        world.serve(world.request(user, "a", new="a"))
        world.now_ms += 1_000  # what a second allows is spent at once
    world.serve(world.request("u", "zba", new="z"))
    world.serve(world.request("v", "?a", new="?"))
    examples = decode_examples(
        value for part in world.scoring.stages.examples.take() for value in encode_examples(part)
    )
    assert examples is not None
    assert len(examples) == 2
    assert (examples.answers[0] >= 0, examples.answers[1]) == (True, -1)
    assert (examples.modelled > 0).all() == (live is not None)
    wanted = feature_names(CountsConfig()).index("demand")
    assert examples.items[0, examples.answers[0], wanted] > np.log(0.9)


def test_a_forgotten_user_teaches_nothing(world: World) -> None:
    world.scoring.models = Models(live=reranked())
    world.serve(world.request("u", "a", new="a"))
    world.serve(world.request("u", "", reason="forget"))
    world.serve(world.request("u", "b", new="b"))
    assert world.scoring.stages.examples.take() == []


def test_counts_survive_a_restart(world: World, tmp_path: Path) -> None:
    world.serve(*[world.request(f"w{n}", "az", new="za") for n in range(3)])
    counts = world.scoring.stages.second_stage.events.counts
    CountsFile(tmp_path).save(counts, now=True)
    again = CountsFile(tmp_path).load(CountsConfig())
    assert again is not None
    assert again.ids == counts.ids
    for name, values in counts.state().items():
        np.testing.assert_array_equal(again.state()[name], values)
    assert CountsFile(tmp_path).load(CountsConfig(demand_days=(1.0,))) is None
    (tmp_path / "counts").write_bytes(b"\x00")
    assert CountsFile(tmp_path).load(CountsConfig()) is None
    assert CountsFile(tmp_path / "none").load(CountsConfig()) is None


def test_counts_that_cannot_be_saved_are_told_of(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    CountsFile(tmp_path / "file").save(world.scoring.stages.second_stage.events.counts, now=True)
    assert "are not saved" in caplog.text


def test_no_examples_are_kept_if_none_are_wanted(tmp_path: Path) -> None:
    world = World(tmp_path)
    config = ListConfig(3)
    world.configure(ListConfig(3, second_stage=type(config.second_stage)(examples_per_second=0)))
    world.scoring.models = Models(live=reranked())
    world.serve(world.request("u", "a", new="a"))
    world.serve(world.request("u", "ba", new="b"))
    assert world.scoring.stages.examples.take() == []
