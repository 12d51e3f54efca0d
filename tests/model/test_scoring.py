"""The best of many scores are found without sorting them all."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.scoring import largest


@settings(max_examples=60)
@given(
    items=st.integers(1, 3_000),
    k=st.integers(1, 12),
    masked=st.floats(0, 1),
    broken=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_thelargest_by_runs_are_thelargest(items: int, k: int, masked: float, broken: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-50, 50, (3, items), generator=generator) / 8  # many equal ones
    scores[torch.rand(3, items, generator=generator) < masked] = -torch.inf
    if broken:
        scores[0, seed % items] = torch.nan
    k = min(k, items)
    values, columns = largest(scores, k)
    torch.testing.assert_close(values, scores.topk(k).values, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(scores.gather(1, columns), values, rtol=0, atol=0, equal_nan=True)
    assert all(len(set(row)) == k for row in columns.tolist())
