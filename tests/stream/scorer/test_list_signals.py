"""What a scorer reports about its lists, and what that may cost."""

import numpy as np
import pytest

from state.history import History
from stream.registry.reference import Reference
from stream.scorer.config import ListConfig, ListSignalsConfig
from stream.scorer.models import Models, in_canary_share
from tests.stream.scorer.known_models import fixed
from tests.support.scoring import World, everybody


def test_the_previous_model_answers_the_same_event(world: World) -> None:
    world.configure(everybody(1.0))
    world.scoring.models = Models(live=fixed("v2", "abcdefgh"), previous=fixed("v1", "hgfedcba"))
    world.serve(world.request("u", "d", new="d"))  # shown abc; the previous one would have shown hgf
    world.serve(world.request("u", "gd", new="g"))
    found = world.windows()
    assert found["against_previous v2"] == [0, 1, 0, 0]  # only the previous one hit
    assert found["against_popularity v2"] == [1, 0, 0, 0]
    assert world.count("prequential_rank_count", variant="previous_shadow", slot="previous") == 1
    assert world.count("prequential_events_total", variant="previous_shadow", outcome="hit") == 1
    assert world.count("rollback_evidence_ratio") > 0.001


def test_the_previous_model_is_asked_by_the_clock_not_by_the_lists(world: World) -> None:
    world.configure(everybody(4.0))
    world.scoring.models = Models(live=fixed("v2", "abcdefgh"), previous=fixed("v1", "hgfedcba"))

    def shadowed(users: int) -> int:
        answers = world.serve(*(world.request(f"u{n}", "d") for n in range(users)))
        return sum(answer.shadow is not None for answer in answers)

    assert [shadowed(100), shadowed(100), shadowed(1)] == [4, 0, 0]
    world.now_ms += 500
    assert [shadowed(100), shadowed(1), shadowed(1), shadowed(1)] == [0, 1, 1, 0]
    world.now_ms += 60_000
    assert [shadowed(3), shadowed(3)] == [3, 0]


def test_lists_are_judged_by_the_clock_and_drift_by_every_event(world: World) -> None:
    world.configure(ListConfig(3, signals=ListSignalsConfig(judged_per_second=4.0)))
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"))

    def outcomes() -> float:
        names = ("hit", "miss", "no_list")
        return sum(world.count("prequential_events_total", variant="control", outcome=name) for name in names)

    def judged(users: int) -> float:
        before = outcomes()
        world.serve(*(world.request(f"u{n}", "ad", new="a") for n in range(users)))
        return outcomes() - before

    world.serve(*(world.request(f"u{n}", "d") for n in range(10)))
    assert [judged(10), judged(1)] == [4, 0]
    world.now_ms += 500
    assert judged(1) == 1
    world.windows()
    assert world.count("item_events_total", status="in_vocabulary") == 12


def test_nobody_is_asked_of_a_previous_model_that_is_live_again(world: World) -> None:
    world.configure(everybody(1.0))
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"), previous=fixed("v1", "abcdefgh"))
    (answer,) = world.serve(world.request("u", "d", new="d"))
    assert answer.shadow is None


def test_a_canary_is_paired_with_what_live_would_have_shown(world: World) -> None:
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"), canary=fixed("v2", "hgfedcba"), canary_share=1.0)
    world.serve(world.request("u", "d", new="d"))
    world.serve(world.request("u", "gd", new="g"))  # in the canary's list only
    world.serve(world.request("u", "agd", new="a"))  # in live's only
    found = world.windows()
    assert found["against_live v2"] == [0, 1, 1, 0]
    assert "against_popularity v1" not in found


def test_each_user_is_counted_once_for_a_canary(world: World) -> None:
    live, users = fixed("v1", "abcdefgh"), [f"u{n}" for n in range(200)]
    for version in ("v2", "v3"):
        world.scoring.models = Models(live=live, canary=fixed(version, "hgfedcba"), canary_share=0.3)
        for _ in range(2):
            world.serve(*(world.request(user, "d") for user in users))
    canary_users = sum(in_canary_share(user.encode(), 0.3) for user in users)
    assert world.count("experiment_users_total", variant="treatment") == 2 * canary_users
    assert world.count("experiment_users_total", variant="control") == 2 * (200 - canary_users)
    assert world.count("experiment_treatment_ratio") == 0.3


def test_lists_have_figures_and_scores_have_bins(world: World) -> None:
    world.configure(everybody(0.0))
    histories = [History(("a", "b"), (2, 1), (1.0, 1.0))] * 10
    reference = Reference.fit("v1", histories, np.array([[3.0, 1.0]] * 10), None)
    world.scoring.models = Models(live=fixed("v1", "abcdefgh"), reference=reference)
    world.serve(*(world.request(f"u{n}", "h", new="h") for n in range(4)))
    world.serve(world.request("u0", "ah", new="a"))
    found = world.windows()
    assert world.count("catalogue_coverage_ratio", variant="control") == 4 / 8  # abc, and bcd
    assert world.count("list_churn_ratio", variant="control") == pytest.approx(0.5)
    assert world.count("recommendation_novelty", variant="control") == 1.0  # a and b are half of what is met each
    assert sum(found["score_top1 v1"]) == 5 and sum(found["item_popularity v1"]) == 5
    assert found["unknown_item_rate"] == [5, 0]
    assert world.count("item_events_total", status="in_vocabulary") == 5
