"""The vectorized history of losses is that of the per-example loop, and sampling follows it."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from model.step_sampler import StepSampler


class Loop:
    """The published algorithm: one example at a time, shifting a row once it is full."""

    def __init__(self, steps: int, memory: int) -> None:
        self.rows: list[list[float]] = [[] for _ in range(steps)]
        self.memory = memory

    def record(self, steps: list[int], losses: list[float]) -> None:
        for step, loss in zip(steps, losses, strict=True):
            self.rows[step] = [*self.rows[step], loss][-self.memory :]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=40), min_size=1, max_size=6), st.integers(0, 999))
def test_the_history_is_that_of_the_loop(batches: list[list[int]], seed: int) -> None:
    fast, slow = StepSampler(4, importance=True, memory=5), Loop(4, 5)
    generator = torch.Generator().manual_seed(seed)
    for steps in batches:
        losses = torch.rand(len(steps), generator=generator, dtype=torch.float64)
        fast.record(torch.tensor(steps), losses)
        slow.record(steps, losses.tolist())
    for step, row in enumerate(slow.rows):
        assert sorted(fast.losses[step].tolist()) == sorted(row + [0.0] * (5 - len(row)))


def test_steps_come_as_often_as_their_loss_is_large_and_stay_unbiased() -> None:
    sampler = StepSampler(2, importance=True, memory=3)
    sampler.record(torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([1.0, 1.0, 1.0, 3.0, 3.0, 3.0]))
    steps, weights = sampler.draw(40_000, torch.Generator().manual_seed(0))
    assert abs(float((steps == 1).float().mean()) - 0.75) < 0.01
    loss = torch.where(steps == 1, 3.0, 1.0)
    assert abs(float((loss * weights).mean()) - 2.0) < 0.02  # the mean over uniform steps


def test_it_is_uniform_until_every_step_has_a_history() -> None:
    sampler = StepSampler(3, importance=True, memory=2)
    sampler.record(torch.tensor([0, 0, 1, 1, 2]), torch.ones(5))
    steps, weights = sampler.draw(30_000, torch.Generator().manual_seed(0))
    assert (weights == 1).all()
    assert (torch.bincount(steps) / 30_000 - 1 / 3).abs().max() < 0.02
