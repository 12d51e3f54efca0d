"""Weights of time: newer counts more, hidden and padded places count nothing, and the formulas hold."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.weighting import Weighting

DAY = 86_400_000
KINDS = [
    Weighting(),
    Weighting("linear_rank", least=0.1),
    Weighting("exponential_rank", half_life=2.0),
    Weighting("exponential_rank", half_life=2.0, least=0.2),
    Weighting("exponential_time", half_life=3.0),
]


@pytest.mark.parametrize("weighting", KINDS)
@given(length=st.integers(0, 300), hidden=st.integers(0, 250), padding=st.integers(0, 5))
def test_the_laws(weighting: Weighting, length: int, hidden: int, padding: int) -> None:
    hidden = min(hidden, length)
    place = torch.arange(length + padding)[None]
    times = 10**12 - place * DAY
    weights = weighting(place - hidden, torch.tensor([length - hidden]), times)[0]
    assert torch.isfinite(weights).all()
    assert not weights[:hidden].any() and not weights[length:].any()
    visible = weights[hidden:length]
    assert (visible >= 0).all() and (visible <= 1).all()
    assert (visible.diff() <= 0).all()
    if len(visible):
        assert visible[0] == 1  # of one interaction too: it is the newest


def test_the_formulas() -> None:
    rank, lengths = torch.arange(5)[None], torch.tensor([5])
    linear = Weighting("linear_rank", least=0.2)(rank, lengths)[0]
    np.testing.assert_allclose(linear, [1.0, 0.8, 0.6, 0.4, 0.2], rtol=1e-6)
    halves = Weighting("exponential_rank", half_life=1.0)(rank, lengths)[0]
    np.testing.assert_allclose(halves, [1, 0.5, 0.25, 0.125, 0.0625])
    times = torch.tensor([[30, 24, 18, 0, 0]]) * DAY
    by_time = Weighting("exponential_time", half_life=6.0)(rank, lengths, times)[0]
    np.testing.assert_allclose(by_time, [1, 0.5, 0.25, 2**-5, 2**-5])


def test_beyond_the_horizon_nothing_counts() -> None:
    weighting = Weighting("exponential_rank", half_life=5.0)
    horizon = weighting.horizon(1e-7)
    assert horizon is not None
    weights = weighting(torch.arange(horizon + 1)[None], torch.tensor([horizon + 1]))[0]
    assert weights[horizon] <= 1e-7 < weights[horizon - 6]
    assert Weighting().horizon() is None


@pytest.mark.parametrize(("field", "value"), [("kind", "sqrt"), ("half_life", 0.0)])
def test_nonsense_is_refused_by_value(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=str(value)):
        Weighting(**{field: value})  # type: ignore[arg-type]
