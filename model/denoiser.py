"""The network that takes a noisy interaction vector and a step, and predicts the clean vector.

Legend: B users, I items, H hidden units next to the items, E width of the step embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["Denoiser", "column_major", "dropped", "step_embedding"]


def step_embedding(steps: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding [B, width] of integer steps [B] (Vaswani et al. 2017)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, device=steps.device) / half)
    angles = steps.float()[:, None] * frequencies[None]
    embedding = torch.cat([angles.cos(), angles.sin()], 1)
    return nn.functional.pad(embedding, (0, width % 2))


def dropped(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """Dropout of x [B, I] drawn from `generator`, so that training can be continued exactly; none without one."""
    if generator is None or not rate:
        return x
    kept = torch.rand(x.shape, generator=generator, device=x.device).ge_(rate)
    return x * kept.div_(1 - rate)


def column_major(weight: Tensor) -> Tensor:
    """The same matrix, stored by columns: x @ weight.T of a few rows x is then a fifth faster on a CPU."""
    return weight.T.contiguous().T


class Denoiser(nn.Module):
    """The paper's MLP: items + step -> dims reversed -> dims -> items, tanh between, none at the end.

    dims [200, 600] gives I + E -> 600 -> 200 -> 600 -> I. The first layer is kept as two, one for the items and one for
    the step, so that the sampler can follow the item part in hidden space.
    """

    def __init__(self, items: int, dims: Sequence[int], embedding: int = 10, dropout: float = 0.5) -> None:
        super().__init__()
        self.dims, self.embedding = tuple(dims), embedding
        widths = [*reversed(self.dims), *self.dims[1:]]
        self.step = nn.Linear(embedding, embedding)
        self.encode = nn.Linear(items, widths[0], bias=False)  # W1's item columns, stored [H, I]
        self.encode_step = nn.Linear(embedding, widths[0])  # W1's step columns and its bias
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.decode = nn.Linear(widths[-1], items)  # Wo, stored [I, H]
        self.dropout = dropout
        self._initialise(items)

    def _initialise(self, items: int) -> None:
        """Xavier-normal weights and N(0, 0.001) biases, as the authors; the first layer's two parts as one matrix."""
        if self.decode.weight.is_meta:
            return  # the values come from a file; here torch would only import its compiler, for seconds
        fan = items + self.embedding + self.encode.out_features
        for layer in (self.encode, self.encode_step):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2.0 / fan))
        for module in (self.step, self.decode, *self.hidden):
            assert isinstance(module, nn.Linear)
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / sum(module.weight.shape)))
            nn.init.normal_(module.bias, 0.0, 0.001)
        nn.init.normal_(self.encode_step.bias, 0.0, 0.001)

    @property
    def items(self) -> int:
        return self.decode.out_features

    def forward(self, x: Tensor, steps: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Prediction [B, I] for noisy vectors [B, I] at steps [B]; with a generator the input is dropped out."""
        return self.decode(self.middle(self.encode(dropped(x, self.dropout, generator)), steps))

    def middle(self, encoded: Tensor, steps: Tensor) -> Tensor:
        """From the encoded items [B, H] to the activations [B, H] that `decode` reads."""
        return self.activate(encoded + self.embed(steps))

    def embed(self, steps: Tensor) -> Tensor:
        """What steps [B] add to the first layer, with its bias: [B, H]."""
        return self.encode_step(self.step(step_embedding(steps, self.embedding).to(self.step.weight.dtype)))

    def activate(self, encoded: Tensor) -> Tensor:
        """From the first layer's sums [B, H], which it overwrites, to the activations [B, H] that `decode` reads."""
        activation = encoded.tanh_()
        for layer in self.hidden:
            activation = layer(activation).tanh_()
        return activation
