"""L-DiffRec and LT-DiffRec: diffusion in the latent space of item clusters (section 3.4 of the paper).

Each cluster of items has a small variational autoencoder; the concatenated latents are diffused and denoised, and one
linear layer decodes them to all items. The encoders of all clusters are one linear layer [2 W, I] whose weights between
an item and the latents of other clusters are masked out, so that a sparse history is encoded by gathering columns, and
the catalogue grows like that of `model.denoiser`.

Legend: B users, I items, L places of a history, W latent width, C clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.denoiser import Denoiser, dropped
from model.sampler import HiddenState, plain_chain
from model.schedule import NoiseSchedule

__all__ = ["LatentChain", "LatentConfig", "LatentDenoiser", "LatentObjective", "cluster_items"]


@dataclass(frozen=True)
class LatentConfig:
    """The authors' defaults. `dims` of the model are those of the denoiser inside the latent space."""

    width: int = 300
    """Width of the concatenated latents, shared out by the size of the clusters."""
    clusters: int = 2
    """Clusters of items."""
    dropout: float = 0.1
    """Dropout of the autoencoder's input."""
    learning_rate: float = 1e-3
    """Learning rate of the autoencoder."""
    balance: float = 0.03
    """Weight between diffusion and reconstruction (lambda) at the start."""
    balance_floor: float = 0.005
    """Value that this weight is annealed to."""
    balance_passes: int = 500
    """Passes through the users over which this weight would fall to 0."""
    kl_cap: float = 0.3
    """Largest weight of the KL divergence."""
    kl_updates: int = 200
    """Optimizer steps over which the weight of the KL divergence would rise to 1."""

    def __post_init__(self) -> None:
        if not 1 <= self.clusters <= self.width:
            raise ValueError(f"{self.clusters} clusters cannot share {self.width} latent units")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    def balance_at(self, passes: int) -> float:
        """lambda of equation 15 after so many passes, annealed linearly to its floor."""
        return max((1 - passes / self.balance_passes) * self.balance, self.balance_floor)

    def kl_weight_at(self, updates: int) -> float:
        """The weight of the KL divergence after so many optimizer steps, annealed linearly to its cap."""
        return min(self.kl_cap, updates / self.kl_updates)


def cluster_items(embedding: Tensor, clusters: int, generator: torch.Generator, rounds: int = 100) -> Tensor:
    """int64 [I] clusters of item embeddings [I, E], the largest cluster first: Lloyd's k-means from k-means++ seeds."""
    points = embedding.float()
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    for _ in range(1, clusters):
        far = torch.cdist(points, centres).amin(1).square() + 1e-12
        centres = torch.cat([centres, points[torch.multinomial(far, 1, generator=generator)]])
    nearest = torch.cdist(points, centres).argmin(1)
    for _ in range(rounds):
        member = nn.functional.one_hot(nearest, clusters).to(points)
        sizes = member.sum(0)[:, None]
        centres = torch.where(sizes > 0, member.T @ points / sizes.clamp(min=1), centres)
        moved = torch.cdist(points, centres).argmin(1)
        if torch.equal(moved, nearest):
            break
        nearest = moved
    order = torch.bincount(nearest, minlength=clusters).argsort(descending=True, stable=True)
    return order.argsort()[nearest]


class LatentDenoiser(nn.Module):
    """Per-cluster encoders, a denoiser between their latents, one decoder.

    `clusters` int64 [I] names each item's cluster; without it items are dealt out in turn.
    """

    clusters: Tensor  # int64 [I]
    owners: Tensor  # int64 [W], the cluster of each latent unit

    def __init__(
        self,
        items: int,
        dims: Sequence[int],
        embedding: int,
        dropout: float,
        config: LatentConfig,
        clusters: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.encode = nn.Linear(items, 2 * width)  # means, then log-variances
        self.decode = nn.Linear(width, items)
        self.inner = Denoiser(width, dims, embedding, dropout)
        if clusters is None:
            clusters = torch.arange(items) % config.clusters
        sizes = torch.bincount(clusters, minlength=config.clusters)
        shares = [max(int(size / max(items, 1) * width), 1) for size in sizes.tolist()[:-1]]
        units = torch.tensor([*shares, width - sum(shares)])
        self.register_buffer("clusters", clusters.to(torch.int64))
        self.register_buffer("owners", torch.repeat_interleave(units))
        nn.init.xavier_normal_(self.decode.weight)
        nn.init.zeros_(self.decode.bias)
        nn.init.zeros_(self.encode.bias)
        with torch.no_grad():  # Xavier-normal for each cluster's own encoder
            self.encode.weight.normal_().mul_((2 / (sizes + 2 * units)).sqrt()[self.clusters])

    @property
    def items(self) -> int:
        return self.decode.out_features

    def encoder(self) -> Tensor:
        """The masked encoder weights [2 W, I]."""
        own = self.owners[:, None] == self.clusters[None]
        return self.encode.weight * own.repeat(2, 1)

    def encoded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(means, log-variances), both [B, W], of interaction vectors [B, I]."""
        hidden = torch.tanh(nn.functional.linear(x, self.encoder(), self.encode.bias))
        means, log_variances = hidden.chunk(2, 1)
        return means, log_variances


class LatentObjective(nn.Module):
    """The joint loss: diffusion of the latents, multinomial reconstruction, annealed KL divergence (equation 15)."""

    def __init__(self, network: LatentDenoiser, schedule: NoiseSchedule, reweight: bool) -> None:
        super().__init__()
        self.network, self.schedule, self.reweight = network, schedule, reweight
        self.passes = self.updates = 0  # for the annealing of weights; set by the learner

    def forward(
        self, x0: Tensor, target: Tensor, steps: Tensor, weights: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, loss of each user's step [B], squared error over that of predicting zero).

        x0 is [B, I], `target` unused; weights [B] make up for how the steps [B] were drawn.
        """
        config = self.network.config
        x = dropped(x0, config.dropout, generator)
        means, log_variances = self.network.encoded(x)
        noise = torch.randn(means.shape, generator=generator, device=means.device)
        latent = means + noise * (log_variances / 2).exp()
        noise = torch.randn(means.shape, generator=generator, device=means.device)
        noisy = self.schedule.signal[steps, None] * latent + self.schedule.noise[steps, None] * noise
        predicted = self.network.inner(noisy, steps, generator)
        error = (predicted - latent).square().mean(1)
        losses = self.schedule.snr_gap[steps] * error if self.reweight else error
        likelihood = (nn.functional.log_softmax(self.network.decode(predicted), 1) * x).sum(1).mean()
        divergence = -0.5 * (1 + log_variances - means.square() - log_variances.exp()).sum(1).mean()
        reconstruction = config.kl_weight_at(self.updates) * divergence - likelihood
        diffusion, balance = (losses * weights).mean(), config.balance_at(self.passes)
        total = balance * diffusion + reconstruction if self.reweight else diffusion + balance * reconstruction
        relative = error.mean() / latent.square().mean().clamp(min=1e-12)
        return total, losses.detach(), relative.detach()


class LatentChain:
    """From sparse histories to the denoised latents that `decode` reads, the counterpart of `HiddenChain`."""

    def __init__(self, network: LatentDenoiser, schedule: NoiseSchedule) -> None:
        self._inner, self._schedule = network.inner, schedule
        with torch.no_grad():
            width = network.config.width
            self._encode = network.encoder()[:width].T.contiguous()  # [I, W]
            self._bias = network.encode.bias[:width].clone()

    @torch.inference_mode()
    def run(self, columns: Tensor, weights: Tensor) -> HiddenState:
        """Columns [B, L] with weights [B, L] (0 where padded); of the state only v [B, W] and u = 1 count."""
        encoded = nn.functional.embedding_bag(columns, self._encode, per_sample_weights=weights, mode="sum")
        return HiddenState(0.0, plain_chain(self._inner, self._schedule, torch.tanh(encoded + self._bias)), 1.0)
