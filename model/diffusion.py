"""The forward process and the training loss of (T-)DiffRec.

Legend: B users, I items, L places of a padded history (0 the newest), T steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.batch import Padded
from model.config import ModelConfig
from model.denoiser import Denoiser
from model.schedule import NoiseSchedule

__all__ = ["DiffusionObjective", "Example", "dense_rows", "examples"]


class Example(NamedTuple):
    """The inputs and targets of a batch of histories."""

    x0: Tensor  # [B, I] weighted input
    target: Tensor  # [B, I] what to reconstruct


def dense_rows(columns: Tensor, values: Tensor, items: int) -> Tensor:
    """[B, I] with values [B, L] at columns [B, L]; padding must carry the value 0."""
    return torch.zeros(len(columns), items, device=values.device).scatter_add_(1, columns, values)


def examples(batch: Padded, config: ModelConfig, items: int, generator: torch.Generator) -> Example:
    """Inputs and targets [B, I] of a batch of padded histories [B, L]; weights are those of section 3.3.

    With temporal hiding, the newest k interactions of a user are left out of the input, k uniform in 0..hide_newest,
    and the weights of the others are as they were before the hidden ones happened. The target is the input plus the
    hidden interactions, with weights by `future` from the next item on, times `hidden_gain`.
    """
    device = batch.columns.device
    place = torch.arange(batch.columns.shape[1], device=device).expand_as(batch.columns)
    hidden = torch.zeros_like(batch.lengths)
    if config.hide_newest:
        draw = torch.rand(len(batch.lengths), generator=generator, device=device) * (config.hide_newest + 1)
        hidden = torch.minimum(draw.long(), (batch.lengths * config.hide_share).long())
    rank = place - hidden[:, None]
    weight = config.weighting(rank, batch.lengths - hidden, batch.times_ms) * batch.strengths
    x0 = dense_rows(batch.columns, weight, items)
    if not config.hide_newest:
        return Example(x0, x0)
    ahead = config.future(-1 - rank, hidden, batch.times_ms) * batch.strengths * config.hidden_gain
    return Example(x0, dense_rows(batch.columns, weight + ahead, items))


class DiffusionObjective(nn.Module):
    """The loss of (T-)DiffRec (equations 2, 9 and 10)."""

    def __init__(self, network: Denoiser, schedule: NoiseSchedule, config: ModelConfig) -> None:
        super().__init__()
        self.network, self.schedule, self.config = network, schedule, config

    def forward(
        self, x0: Tensor, target: Tensor, steps: Tensor, weights: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, loss of each user's step [B], squared error over that of predicting zero).

        x0 and target are [B, I]; weights [B] make up for how the steps [B] were drawn.
        """
        schedule, config = self.schedule, self.config
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        signal, deviation = schedule.signal[steps, None], schedule.noise[steps, None]
        goal = target if config.prediction == "x0" else noise.clone()
        x_t = noise.mul_(deviation).addcmul_(x0, signal)
        predicted = self.network(x_t, steps, generator).float()
        error = nn.functional.mse_loss(predicted, goal, reduction="none").mean(1)
        losses = error
        if config.reweight and config.prediction == "x0":
            losses = schedule.snr_gap[steps] * error
        elif config.reweight:  # the last step is judged by the x0 it implies (the authors' code)
            implied = ((x_t - deviation * predicted) / signal - x0).square().mean(1) / 2
            losses = torch.where(steps == 0, implied, schedule.noise_gap[steps] * error)
        zero = torch.linalg.vector_norm(goal).square() / max(goal.numel(), 1)
        relative = error.mean() / zero.clamp(min=1e-12)
        return (losses * weights).mean(), losses.detach(), relative.detach()
