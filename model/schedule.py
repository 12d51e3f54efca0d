"""Noise schedules: how much of the interactions is left at each diffusion step.

Legend: T steps, t = 0 .. T-1; beta_t the variance added at t, abar_t = prod (1 - beta).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["NoiseSchedule", "ScheduleConfig"]


@dataclass(frozen=True)
class ScheduleConfig:
    """`linear_variance` is the paper's: 1 - abar grows linearly from scale * least to scale * most (equation 4)."""

    kind: Literal["linear_variance", "linear", "cosine"] = "linear_variance"
    """How the noise grows with the step."""
    steps: int = 5
    """Diffusion steps."""
    scale: float = 0.005
    """Factor on least and most."""
    least: float = 0.005
    """Noise of the first step."""
    most: float = 0.01
    """Noise of the last step."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")
        if not 0 < self.scale * self.least <= self.scale * self.most < 1:
            raise ValueError(f"need 0 < scale*least <= scale*most < 1, got {self.scale}, {self.least}, {self.most}")

    def betas(self) -> Tensor:
        """float64 [T]. beta_0 is 1e-5, as in the authors' code: the last denoising step predicts the data itself."""
        steps, start, end = self.steps, self.scale * self.least, self.scale * self.most
        if self.kind == "linear":  # Ho et al. 2020
            betas = torch.linspace(start, end, steps, dtype=torch.float64)
        elif self.kind == "linear_variance":
            abar = 1 - torch.linspace(start, end, steps, dtype=torch.float64)
            betas = torch.cat([1 - abar[:1], 1 - abar[1:] / abar[:-1]])
        elif self.kind == "cosine":  # Nichol and Dhariwal 2021
            place = torch.arange(steps + 1, dtype=torch.float64) / steps
            abar = torch.cos((place + 0.008) / 1.008 * math.pi / 2) ** 2
            betas = 1 - abar[1:] / abar[:-1]
        else:
            raise ValueError(f"unknown schedule {self.kind!r}")
        betas = betas.clamp(max=0.999)
        betas[0] = 1e-5
        return betas


class NoiseSchedule(nn.Module):
    """The constants of the forward process and its posterior, as float32 buffers [T] that move with the module."""

    abar: Tensor
    signal: Tensor  # sqrt(abar)
    noise: Tensor  # sqrt(1 - abar)
    posterior_x0: Tensor  # weight of x0 in the mean of q(x_{t-1} | x_t, x0), equation 8
    posterior_xt: Tensor  # weight of x_t in it
    posterior_deviation: Tensor  # standard deviation of that posterior
    snr_gap: Tensor  # SNR(t-1) - SNR(t), 1 at t = 0: the loss weights of equation 10, for x0-prediction
    noise_gap: Tensor  # (1 - abar_t) / ((1 - abar_{t-1})^2 (1 - beta_t)), 1 at t = 0: those for eps-prediction

    def __init__(self, config: ScheduleConfig) -> None:
        super().__init__()
        self.steps = config.steps
        betas = config.betas()
        abar = torch.cumprod(1 - betas, 0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
        snr = abar / (1 - abar)
        constants = {
            "abar": abar,
            "signal": abar.sqrt(),
            "noise": (1 - abar).sqrt(),
            "posterior_x0": betas * before.sqrt() / (1 - abar),
            "posterior_xt": (1 - before) * (1 - betas).sqrt() / (1 - abar),
            "posterior_deviation": (betas * (1 - before) / (1 - abar)).sqrt(),
            "snr_gap": torch.cat([torch.ones(1, dtype=torch.float64), snr[:-1] - snr[1:]]),
            "noise_gap": torch.cat(
                [torch.ones(1, dtype=torch.float64), (1 - abar[1:]) / ((1 - before[1:]).square() * (1 - betas[1:]))]
            ),
        }
        for name, value in constants.items():
            self.register_buffer(name, value.float())
