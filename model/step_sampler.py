"""Draws the diffusion step of each training example: uniformly, or by the recent losses of each step.

The history of losses is a buffer of the module, so that a stored model that continues later still has it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["StepSampler"]

_UNIFORM_SHARE = 0.001  # of the probability, so that every step is drawn at times (the authors' code)


class StepSampler(nn.Module):
    """Importance sampling with p_t proportional to sqrt(E[loss_t^2]) over the last `memory` losses (section 3.2)."""

    losses: Tensor  # float64 [T, memory], a ring per step
    counts: Tensor  # int64 [T], losses seen

    def __init__(self, steps: int, importance: bool, memory: int = 10) -> None:
        super().__init__()
        self.steps, self.importance, self.memory = steps, importance, memory
        self.register_buffer("losses", torch.zeros(steps, memory, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(steps, dtype=torch.int64))

    def draw(self, users: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(Steps int64 [B], weights float32 [B]). With these weights, the expected loss is that of uniform steps."""
        device = self.losses.device
        if not self.importance or bool((self.counts < self.memory).any()):
            steps = torch.randint(self.steps, (users,), generator=generator, device=device)
            return steps, torch.ones(users, device=device)
        size = self.losses.square().mean(1).sqrt()
        probability = size / size.sum() * (1 - _UNIFORM_SHARE) + _UNIFORM_SHARE / self.steps
        steps = torch.multinomial(probability, users, replacement=True, generator=generator)
        return steps, (1 / (probability[steps] * self.steps)).float()

    @torch.no_grad()
    def record(self, steps: Tensor, losses: Tensor) -> None:
        """Append losses [B] of steps [B] to their rings, in order, without a loop over examples."""
        if not self.importance:
            return
        order = torch.argsort(steps, stable=True)
        sorted_steps = steps[order]
        counts = torch.bincount(steps, minlength=self.steps)
        first = torch.cumsum(counts, 0) - counts
        nth = torch.arange(len(steps), device=steps.device) - first[sorted_steps]  # how many of its step came before
        kept = nth >= counts[sorted_steps] - self.memory  # older ones would be overwritten at once
        slot = (self.counts[sorted_steps] + nth) % self.memory
        self.losses[sorted_steps[kept], slot[kept]] = losses[order][kept].double()
        self.counts += counts
