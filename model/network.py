"""The network of a configuration: it denoises interaction vectors, or the latents of item clusters."""

from __future__ import annotations

from torch import Tensor

from model.config import ModelConfig
from model.denoiser import Denoiser
from model.latent import LatentDenoiser

__all__ = ["Network", "build_network"]

Network = Denoiser | LatentDenoiser


def build_network(config: ModelConfig, items: int, clusters: Tensor | None = None) -> Network:
    """The denoiser over items (section 3.1), or over the latents of `clusters` int64 [I] (section 3.4)."""
    if config.latent is None:
        return Denoiser(items, config.dims, config.embedding, config.dropout)
    return LatentDenoiser(items, config.dims, config.embedding, config.dropout, config.latent, clusters)
