"""The hidden-space chain gives what the published chain gives, for any model."""

from typing import Literal

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.denoiser import Denoiser
from model.sampler import HiddenChain, plain_chain
from model.schedule import NoiseSchedule, ScheduleConfig


@settings(max_examples=40)
@given(
    st.integers(0, 2**31),
    st.integers(1, 12),
    st.sampled_from(["x0", "eps"]),
    st.sampled_from(["linear_variance", "linear", "cosine"]),
    st.sampled_from([(7,), (5, 9), (4, 6, 8)]),
    st.floats(0.01, 0.9),
)
def test_equal_to_the_plain_chain(
    seed: int,
    steps: int,
    prediction: str,
    kind: Literal["linear_variance", "linear", "cosine"],
    dims: tuple[int, ...],
    scale: float,
) -> None:
    torch.manual_seed(seed)
    items, users, places = 23, 6, 5
    denoiser = Denoiser(items, dims).double().eval()
    schedule = NoiseSchedule(ScheduleConfig(kind, steps, scale, 0.005, 0.02)).double()
    columns = torch.stack([torch.randperm(items)[:places] for _ in range(users)])
    weights = torch.rand(users, places, dtype=torch.float64)
    weights[0] = 0  # an empty history
    x0 = torch.zeros(users, items, dtype=torch.float64).scatter_add_(1, columns, weights)

    expected = plain_chain(denoiser, schedule, x0, prediction)
    s, v, u = HiddenChain(denoiser, schedule, prediction).run(columns, weights)
    with torch.inference_mode():
        found = s * x0 + v @ denoiser.decode.weight.T + u * denoiser.decode.bias

    # eps-prediction divides by the signal at every step, which magnifies rounding with T
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
