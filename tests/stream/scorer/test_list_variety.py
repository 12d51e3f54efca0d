"""Served lists with variety: chosen from more candidates, with their own scores, of what may be listed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.rerank.counts import CountsConfig
from model.rerank.features import USER_FEATURES, start_weights
from model.rerank.reranker import Reranker
from model.variety import VarietyConfig
from stream.scorer.config import ListConfig, settings_digest
from stream.scorer.list_maker import Answer
from stream.scorer.models import Models
from stream.wire.items import ItemRecord
from tests.stream.scorer.known_models import fixed
from tests.support.scoring import Fixed, World, names


def world(tmp_path: Path, **variety: float) -> World:
    made = World(tmp_path)
    made.configure(ListConfig(3, variety=VarietyConfig(**variety)))  # type: ignore[arg-type]
    made.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    return made


def scores(answer: Answer) -> list[float]:
    return [item.score for item in answer.items]


def favourites(made: World) -> None:
    """Everybody meets b and c; the other items are met by one user each."""
    made.serve(*[made.request(f"w{n}", "bc", new="bc") for n in range(20)])
    made.serve(*[made.request(f"v{item}", item, new=item) for item in "adefgh"])


def test_favourites_of_everybody_give_way_and_keep_their_scores(tmp_path: Path) -> None:
    plain = world(tmp_path / "plain")
    favourites(plain)
    (before,) = plain.serve(plain.request("u", "h", new="h"))
    made = world(tmp_path / "varied", popular=1.0)
    favourites(made)
    (after,) = made.serve(made.request("u", "h", new="h"))
    assert (names(before), names(after)) == ("abc", "ade")
    assert scores(after) == [7.0, 4.0, 3.0], "what the model gives them among a, b, c, d, e, f and g"
    assert after.version == "v1"


def test_alike_items_are_spread(tmp_path: Path) -> None:
    made = world(tmp_path, alike=50.0)
    model = made.scoring.models.live
    assert isinstance(model, Fixed)
    model.alike = {"a": "b"}
    (answer,) = made.serve(made.request("u", "h", new="h"))
    assert names(answer) == "acd"


def test_a_category_has_no_more_than_its_share_and_what_ended_is_not_listed(tmp_path: Path) -> None:
    made = world(tmp_path, per_category=1)
    film, book = ("film",), ("book", "film")
    records = {"a": film, "b": film, "c": book, "d": ("book",), "e": (), "f": ()}
    put = made.scoring.catalogue.put
    put({item: ItemRecord(item, categories=of) for item, of in records.items()}, made.now_ms)
    (answer,) = made.serve(made.request("u", "h", new="h"))
    assert names(answer) == "ade"
    put({"a": ItemRecord("a", available=False, categories=film)}, made.now_ms)
    (answer,) = made.serve(made.request("u", "h", new="h"))
    assert names(answer) == "bde"


@pytest.mark.parametrize("wanted", [True, False])
def test_a_rerankers_lists_are_varied_too(tmp_path: Path, wanted: bool) -> None:
    made = world(tmp_path, **({"popular": 100.0} if wanted else {}))
    model = made.scoring.models.live
    assert model is not None
    start = torch.from_numpy(start_weights(CountsConfig(), 5))
    model.reranker = Reranker(start, len(USER_FEATURES), hidden=3)  # orders by demand
    favourites(made)
    (answer,) = made.serve(made.request("u", "h", new="h"))
    assert ("b" in names(answer)) != wanted


def test_without_variety_settings_keep_their_digest() -> None:
    assert settings_digest(ListConfig(3)) == settings_digest(ListConfig(3, variety=VarietyConfig(candidates=7)))
    assert settings_digest(ListConfig(3)) != settings_digest(ListConfig(3, variety=VarietyConfig(popular=0.1)))
    assert ListConfig(3).chosen_from == 3
    assert ListConfig(3, variety=VarietyConfig(alike=1)).chosen_from == 100


def test_users_of_whom_the_model_knows_nothing_get_what_they_got(tmp_path: Path) -> None:
    made = world(tmp_path, popular=1.0)
    favourites(made)
    made.scoring.models = Models()
    (answer,) = made.serve(made.request("u", "h", new="h"))
    assert answer.variant == "popularity" and np.isin(list("bc"), list(names(answer))).all()
