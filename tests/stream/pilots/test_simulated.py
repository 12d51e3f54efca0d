"""The short form of tests/benchmarks/bench_pilots.py: a true difference is found, and where there is none, none is."""

import pytest

from stream.sources.simulate import WorldConfig
from tests.support.pilot_world import Events, readings, verdict, world_events

SMALL = WorldConfig(users=600, items=120, genres=6)


@pytest.fixture(scope="module")
def worlds() -> list[Events]:
    return [world_events(seed, 8_000, SMALL) for seed in range(2)]


@pytest.mark.parametrize(("advantage", "expected"), [(0.25, "better"), (-0.25, "worse"), (0.0, "")])
def test_a_true_difference_is_decided_rightly_and_none_is_left_open(
    worlds: list[Events], advantage: float, expected: str
) -> None:
    for seed, events in enumerate(worlds):
        assert verdict(readings(events, advantage, f"pilot-{seed}"))[0] == expected
