"""The reverse chain of (T-)DiffRec: the plain one, and an exact one that goes over the catalogue only once.

For one user, a plain chain of T steps over I items with H hidden units next to them takes 2 T I H multiplications.
Every x_t of it has the form

    x_t = s x_0 + Wo v + u bo

with two scalars and a vector v of H numbers, because each step adds a multiple of the prediction Wo a + bo to a
multiple of x_t (equation 8 for the mean of the posterior). The network reads x_t only through its linear first layer,

    W1 x_t = s W1 x_0 + K v + u W1 bo,      K = W1 Wo  [H, H], once per model

so the whole chain runs on H numbers, W1 x_0 is a sparse sum over the history, and Wo is needed once, at the end:
T H^2 + I H. The result is the same up to rounding.

Legend: B users, I items, H hidden units next to the items, L places of a history, T steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.denoiser import Denoiser, column_major
from model.schedule import NoiseSchedule

__all__ = ["HiddenChain", "HiddenState", "plain_chain"]


def _step_factors(schedule: NoiseSchedule, step: int, prediction: str) -> tuple[float, float]:
    """(A, B) of x_{t-1} = A x_t + B f(x_t, t), f the network's output."""
    of_x0, of_xt = float(schedule.posterior_x0[step]), float(schedule.posterior_xt[step])
    if prediction == "x0":
        return of_xt, of_x0
    signal, noise = float(schedule.signal[step]), float(schedule.noise[step])  # x0 = (x_t - noise eps) / signal
    return of_xt + of_x0 / signal, -of_x0 * noise / signal


@torch.inference_mode()
def plain_chain(
    denoiser: Denoiser,
    schedule: NoiseSchedule,
    x0: Tensor,
    prediction: str = "x0",
    *,
    noisy_steps: int = 0,
    sample: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Algorithm 2 as published: scores [B, I] from clean vectors [B, I].

    `noisy_steps` first adds the noise of that many forward steps (0: start from the clean vector); `sample` draws from
    the posterior of each step instead of taking its mean.
    """
    x = x0
    if noisy_steps:
        noise = torch.randn(x0.shape, generator=generator, device=x0.device)
        x = schedule.signal[noisy_steps - 1] * x0 + schedule.noise[noisy_steps - 1] * noise
    for step in reversed(range(schedule.steps)):
        keep, add = _step_factors(schedule, step, prediction)
        steps = torch.full((len(x),), step, device=x.device)
        x = keep * x + add * denoiser(x, steps)
        if sample and step:
            noise = torch.randn(x.shape, generator=generator, device=x.device)
            x = x + schedule.posterior_deviation[step] * noise
    return x


class HiddenState(NamedTuple):
    """x = s x_0 + Wo v + u bo."""

    s: float
    v: Tensor  # [B, H]
    u: float


class HiddenChain:
    """The chain in hidden space for one frozen denoiser."""

    def __init__(self, denoiser: Denoiser, schedule: NoiseSchedule, prediction: str = "x0") -> None:
        self._denoiser = denoiser
        for parameter in denoiser.hidden.parameters():
            if parameter.ndim == 2:
                parameter.data = column_major(parameter.data)
        with torch.no_grad():
            self._encode = denoiser.encode.weight.T.contiguous()  # [I, H]: a history gathers rows
            self._k = column_major(denoiser.encode.weight @ denoiser.decode.weight)  # [H1, H2]
            k_bias = denoiser.encode.weight @ denoiser.decode.bias  # [H1]
            embedded = denoiser.embed(torch.arange(schedule.steps, device=k_bias.device))  # [T, H1]
            # s and u are the same for every user, so what a step adds to the first layer can be computed in advance.
            self._steps: list[tuple[float, Tensor, float, float]] = []  # s, u W1 bo + step [H1], A, B
            s, u = 1.0, 0.0
            for step in reversed(range(schedule.steps)):
                keep, add = _step_factors(schedule, step, prediction)
                self._steps.append((s, embedded[step] + u * k_bias, keep, add))
                s, u = keep * s, keep * u + add
            self._s, self._u = s, u

    @torch.inference_mode()
    def run(self, columns: Tensor, weights: Tensor) -> HiddenState:
        """Algorithm 2 from columns [B, L] with weights [B, L] (0 where padded) to the state after the last step."""
        start = functional.embedding_bag(
            columns, self._encode, per_sample_weights=weights, mode="sum"
        )  # W1 x_0  [B, H]
        v: Tensor | None = None  # zero before the first step
        for s, offset, keep, add in self._steps:
            encoded = torch.add(offset, start, alpha=s)
            if v is not None:
                encoded.addmm_(v, self._k.T)
            activation = self._denoiser.activate(encoded)
            v = activation.mul_(add) if v is None else v.mul_(keep).add_(activation, alpha=add)
        assert v is not None  # a schedule has a step
        return HiddenState(self._s, v, self._u)
