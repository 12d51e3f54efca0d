"""Every user gets a valid list, whatever the models do."""

import msgspec

from model.errors import NonFiniteScores
from stream.scorer.models import Models, in_canary_share
from stream.wire.records import Recommendation
from tests.stream.scorer.known_models import fixed
from tests.support.scoring import NOW, World, names


def test_without_a_model_popularity_answers_and_says_so(world: World) -> None:
    world.serve(world.request("u", "ab", new="ab"), world.request("v", "a", new="a"))
    (answer,) = world.serve(world.request("w", "b", new="b"))
    assert (names(answer), answer.variant, answer.version) == ("a", "popularity", "")
    assert answer.value is not None
    published = msgspec.json.decode(answer.value, type=Recommendation)
    assert (published.user, published.variant, published.model, published.as_of) == ("w", "popularity", "", NOW)
    assert world.count("fallback_lists_total", reason="no_model") == 3


def test_a_model_answers_without_what_the_user_knows(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    (answer,) = world.serve(world.request("u", "bx", new="b"))
    assert (names(answer), answer.variant, answer.version) == ("acd", "control", "v1")


def test_a_user_of_unknown_items_gets_popularity(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    cold, warm = world.serve(world.request("u", "xyz", new="x"), world.request("v", "a", new="a"))
    assert (cold.variant, cold.version, warm.variant) == ("popularity", "", "control")
    assert world.count("fallback_lists_total", reason="cold_user") == 1


def test_an_exhausted_catalogue_gives_a_shorter_list(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))
    (answer,) = world.serve(world.request("u", "abcdefg", new="a"))
    assert names(answer) == "h"


def test_unsound_scores_are_never_published(world: World) -> None:
    unsound, sound = fixed("v2", "abc", fails=NonFiniteScores), fixed("v1", "hgfedcba")
    world.scoring.models = Models(live=unsound, previous=sound)
    (answer,) = world.serve(world.request("u", "a", new="a"))
    assert (names(answer), answer.version) == ("hgf", "v1")
    world.scoring.models = Models(live=unsound)
    (answer,) = world.serve(world.request("u", "a", new="a"))
    assert answer.variant == "popularity"
    assert world.count("nonfinite_scores_total", slot="live") == 2
    assert world.count("fallback_lists_total", reason="error") == 1


def test_a_model_that_breaks_does_not_stop_the_stream(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abc", fails=IndexError))
    (answer,) = world.serve(world.request("u", "a", new="a"))
    assert answer.variant == "popularity"
    assert world.count("scoring_failures_total", reason="model") == 1


def test_the_canary_answers_its_share_of_the_users(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcd"), canary=fixed("v2", "dcba"), canary_share=0.3)
    users = [f"u{n}" for n in range(300)]
    answers = world.serve(*(world.request(user, "h") for user in users))
    canary_users = {a.request.user for a in answers if a.variant == "treatment"}
    assert canary_users == {user.encode() for user in users if in_canary_share(user.encode(), 0.3)}
    assert 60 < len(canary_users) < 120
    assert all(
        (names(a), a.version) == (("dcb", "v2") if a.request.user in canary_users else ("abc", "v1")) for a in answers
    )
    assert not in_canary_share(b"u", 0.0) and in_canary_share(b"u", 1.0)


def test_nobody_else_waits_for_the_canary(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcd"), canary=fixed("v2", "dcba"), canary_share=0.3)
    requests = [world.request(f"u{n}", "h") for n in range(100)]
    scored = world.scoring.score(requests)
    assert scored.answers and all(answer.value is not None for answer in scored.answers)
    assert scored.canary_users and len(scored.answers) + len(scored.canary_users) == 100


def test_an_unsound_canary_leaves_its_users_to_live(world: World) -> None:
    unsound = fixed("v2", "dcba", fails=NonFiniteScores)
    world.scoring.models = Models(live=fixed("v1", "abcd"), canary=unsound, canary_share=1.0)
    (answer,) = world.serve(world.request("u", "h"))
    assert (names(answer), answer.version, answer.variant) == ("abc", "v1", "control")
    assert answer.shadow is None
