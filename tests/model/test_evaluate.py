"""An interval that may be read after every observation."""

import numpy as np

from model.evaluate import confidence_sequence


def test_it_holds_the_mean_at_every_moment_at_once() -> None:
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(200):
        differences = rng.choice([-1.0, 0.0, 1.0], p=[0.04, 0.92, 0.04], size=3_000)
        mean, distance = confidence_sequence(differences)
        missed += bool((np.abs(mean[99:]) > distance[99:]).any())
    assert missed <= 0.05 * 200


def test_a_fixed_interval_that_is_read_at_every_moment_does_not() -> None:
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(200):
        differences = rng.choice([-1.0, 0.0, 1.0], p=[0.04, 0.92, 0.04], size=3_000)
        count = np.arange(1, 3_001)
        error = 1.96 * np.sqrt(0.08 / count)
        missed += bool((np.abs(np.cumsum(differences) / count)[99:] > error[99:]).any())
    assert missed > 0.2 * 200


def test_it_sees_a_real_difference_and_costs_less_than_twice_the_width() -> None:
    rng = np.random.default_rng(1)
    differences = rng.normal(0.02, 0.2, 20_000)
    mean, distance = confidence_sequence(differences)
    assert mean[-1] - distance[-1] > 0
    assert 1.96 * 0.2 / np.sqrt(20_000) < distance[-1] < 2 * 1.96 * 0.2 / np.sqrt(20_000)


def test_differences_may_depend_on_the_past() -> None:
    """A user's luck lasts: the mean to be expected moves, and the sequence follows what was to be expected."""
    rng = np.random.default_rng(2)
    expected = np.repeat(rng.choice([-0.1, 0.1], size=200), 25)
    mean, distance = confidence_sequence(expected + rng.normal(0, 0.3, 5_000))
    running = np.cumsum(expected) / np.arange(1, 5_001)
    assert (np.abs(mean - running)[99:] <= distance[99:]).all()
