"""A catalogue that grows: new items get rows in every tensor with a dimension of items, and no old row moves.

Legend: I items, N neighbours kept per item.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from model.latent import LatentDenoiser
from model.network import Network

__all__ = ["widen_moments", "widen_network", "widen_rows"]

_ITEM_DIMENSION = {"encode.weight": 1, "decode.weight": 0, "decode.bias": 0, "clusters": 0}  # by tensor


def widen_network(network: Network, added: int) -> None:
    """Give `network` columns for `added` new items.

    A new item starts with random input weights of the size of the old ones. It also starts with the mean output row and
    bias of the old ones, so that its scores are neither high nor low. In the latent variants it joins the smallest
    cluster.
    """
    for name, rows in _new_rows(network, added).items():
        layer, _, kind = name.rpartition(".")
        owner = network.get_submodule(layer)
        old = getattr(owner, kind)
        wider = torch.cat([old.data, rows.to(old)], _ITEM_DIMENSION[name])
        setattr(owner, kind, nn.Parameter(wider, old.requires_grad) if isinstance(old, nn.Parameter) else wider)
    network.encode.in_features = network.decode.out_features = network.encode.in_features + added


def _new_rows(network: Network, added: int) -> dict[str, Tensor]:
    encode, decode = network.encode.weight.detach(), network.decode
    random = torch.Generator().manual_seed(encode.shape[1] + added)
    rows: dict[str, Tensor] = {}
    if encode.shape[1]:
        rows["encode.weight"] = torch.randn(len(encode), added, generator=random) * encode.std().cpu()
        rows["decode.weight"] = decode.weight.detach().mean(0, keepdim=True).expand(added, -1)
        rows["decode.bias"] = decode.bias.detach().mean().expand(added)
    else:  # the first items of all: Xavier-normal
        for name, shape in (("encode.weight", (len(encode), added)), ("decode.weight", (added, decode.in_features))):
            rows[name] = torch.randn(shape, generator=random) * (2 / sum(shape)) ** 0.5
        rows["decode.bias"] = torch.zeros(added)
    if isinstance(network, LatentDenoiser):
        sizes = torch.bincount(network.clusters, minlength=network.config.clusters)
        rows["clusters"] = sizes.argmin().expand(added)
    return rows


def widen_moments(state: dict[str, Any], name: str, parameter: nn.Parameter) -> dict[str, Any]:
    """The optimizer's state of a parameter that was widened: moments of new items are zero."""
    if name not in _ITEM_DIMENSION or "exp_avg" not in state:
        return state
    dimension = _ITEM_DIMENSION[name]
    wider = dict(state)
    for moment in ("exp_avg", "exp_avg_sq"):
        grown = torch.zeros_like(parameter.data)
        grown.narrow(dimension, 0, state[moment].shape[dimension]).copy_(state[moment])
        wider[moment] = grown
    return wider


def widen_rows(rows: Tensor | None, added: int) -> Tensor | None:
    """[I, N] with `added` rows of zeros below: a new item has no neighbours yet."""
    return rows if rows is None else torch.cat([rows, rows.new_zeros((added, rows.shape[1]))])
