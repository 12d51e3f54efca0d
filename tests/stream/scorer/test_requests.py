"""Refreshes become one request per user, and a bad one is refused with its reason."""

import msgspec
import pytest

from state import codec
from state.history import History
from stream.scorer.models import Models
from stream.scorer.requests import Request
from stream.wire.records import Refresh, Rejected
from tests.stream.scorer.known_models import fixed
from tests.support.scoring import NOW, World, names


def test_the_newest_history_answers_for_all_that_came(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    first, second = world.request("u", "h", new="h"), world.request("u", "ah", new="a")
    model = world.request("u", "ah", reason="model")
    (answer,) = world.serve(first, second, model)
    assert names(answer) == "bcd"
    assert (answer.request.reason, answer.request.arrivals_ms) == ("event", (NOW, NOW))
    assert [event.item for event in answer.request.new] == ["h", "a"]
    assert world.count("event_to_recommendation_seconds_count") == 2
    assert world.count("event_to_recommendation_seconds_sum") == pytest.approx(0.010, rel=1e-3)


def test_forgetting_wins_and_what_follows_starts_over(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    world.serve(world.request("u", "h", new="h"))
    forget, event = world.request("u", "", reason="forget"), world.request("u", "a", new="a")
    (answer,) = world.serve(forget, event)
    assert names(answer) == "bcd"
    assert world.count("prequential_events_total", variant="popularity", outcome="no_list") == 2


GOOD = Refresh("event", NOW, (), codec.encode(History())).encode()


@pytest.mark.parametrize(
    ("user", "value", "reason"),
    [
        (None, GOOD, "schema"),
        (b"u", None, "schema"),
        (b"\xff", GOOD, "schema"),
        (b"u", b"", "decode"),
        (b"u", b"\x94\xa5event", "decode"),
        (b"u", msgspec.msgpack.encode(["later", NOW, [], b""]), "schema"),
        (b"u", Refresh("event", NOW, (), b"\x63").encode(), "schema"),
    ],
)
def test_a_bad_refresh_is_refused_with_its_reason(user: bytes | None, value: bytes | None, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        Request.decode(0, 0, user, value)
    assert refused.value.reason == reason
