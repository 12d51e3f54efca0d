"""A published list says why it holds its items, when it shall."""

import msgspec
import pytest

from model.batch import Histories
from state import codec
from state.history import EMPTY, Entry, merge_entries
from stream.scorer.config import ListConfig
from stream.scorer.models import Models
from stream.scorer.requests import Request
from stream.wire.records import Recommendation, Refresh
from tests.stream.scorer.known_models import fixed
from tests.support.pairs import paired_model
from tests.support.scoring import NOW, World


def asked(*items: str) -> Request:
    """Newest first."""
    entries = [Entry(NOW - place, item, 1.0) for place, item in enumerate(items)]
    value = Refresh("event", NOW, (), codec.encode(merge_entries(EMPTY, entries, 200))).encode()
    return Request.decode(0, 1, b"ann", value)


def published(world: World, request: Request) -> Recommendation:
    (answer,) = world.serve(request)
    assert answer.value is not None
    return msgspec.json.decode(answer.value, type=Recommendation)


def score(item: str, *met: str) -> float:
    """By the model, of an item for a user who met these, newest first."""
    model = paired_model()
    histories = Histories.pack(model.items, [(met, range(len(met), 0, -1), [1.0] * len(met))])
    return float(model.scores(histories)[0, model.items.columns([item])[0]])


def test_each_item_names_what_raised_its_score_and_by_how_much(world: World) -> None:
    world.configure(ListConfig(2, explain=2))
    world.scoring.models = Models(live=paired_model())
    met = ("unknown", "i20", "i4", "i12")  # the model does not know the newest
    found = published(world, asked(*met))
    assert [scored.because[0].item for scored in found.items] == [f"i{int(s.item[1:]) - 1}" for s in found.items]
    for scored in found.items:
        assert 1 <= len(scored.because) <= 2
        for reason in scored.because:
            without = score(scored.item, *(item for item in met[1:] if item != reason.item))
            assert scored.score - without == pytest.approx(reason.amount, abs=1e-4)


def test_nothing_is_said_unless_it_is_asked_for_nor_where_nobody_knows(world: World) -> None:
    world.scoring.models = Models(live=paired_model())
    value = world.serve(asked("i20"))[0].value
    assert value is not None and b"because" not in value
    world.configure(ListConfig(2, explain=2))
    world.scoring.models = Models(live=fixed("v1", "abc"))  # which cannot say why
    found = published(world, asked("a"))
    assert [scored.item for scored in found.items] == ["b", "c"] and not any(s.because for s in found.items)
    assert published(world, asked("x")).variant == "popularity"
