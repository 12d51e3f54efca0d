"""The item-item term, which is mixed with the diffusion: which items follow which; linear, directed and sparse.

Take the moment after each interaction of each user. Let x hold weights of the items before that moment and y weights of
the items after it; both are halved with distance (half_life, future_half_life). The term is the ridge regression of y
on x over all moments,

    B = (G + ridge D)^-1 C,    G_ij = sum over pairs of k(|gap|), k(gap) = 2^(-gap / half_life),
                               C_ij = sum over pairs with j after i of 2^(-(gap - 1) / future_half_life)

with D the mean of G's diagonal. It is EASE (Steck 2019) for predicting later items: sums over pairs of one history, in
closed form, without sampling of moments. G is exact for exponential x because the sum over moments of x x' is k up to a
factor. Above `exact_items` the inverse is replaced by scaling, C_ij / sqrt(G_ii G_jj). Each item keeps its strongest
neighbours, in the closed form also those with negative weights.

Legend: I items, N neighbours kept per item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from model.batch import Histories

__all__ = ["ItemItemConfig", "item_item_weights"]

_PAIRS_PER_BLOCK = 1 << 23  # bounds the memory of counting to a few hundred MiB


@dataclass(frozen=True)
class ItemItemConfig:
    """How the term counts pairs, what it keeps, and its share in the scores."""

    share: float = 0.7
    """Share of the item-item term in the final score; 0 leaves the term out."""
    half_life: float = 3.5
    """Half-life, in items, of what came before."""
    future_half_life: float = 10.0
    """Half-life, in items, of what comes after."""
    window: int = 64
    """Largest gap between two items of a history that are counted as a pair."""
    ridge: float = 0.5
    """Regularisation, as a share of the mean diagonal."""
    neighbours: int = 300
    """Neighbours kept per item."""
    exact_items: int = 6_000
    """Most items for the closed form; above it the counts are scaled."""
    large_window: int = 16
    """The window above that number of items."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must be between 0 and 1, got {self.share}")
        for name in ("half_life", "future_half_life", "window", "ridge", "neighbours", "large_window"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


def item_item_weights(
    histories: Histories, items: int, config: ItemItemConfig, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """(neighbours int64 [I, N], weights float32 [I, N]): what an interaction with item i adds to each neighbour,
    the strongest of each row of B = (G + ridge D)^-1 C.

    Rows with fewer than N neighbours are filled with neighbours of weight 0. The closed form is solved on `device`.
    """
    count = min(config.neighbours, max(items - 1, 1))
    if items <= config.exact_items:
        return _strongest(_regression(histories, items, config, device or torch.device("cpu")), count)
    return _scaled(histories, items, config, count)


def _pairs(histories: Histories, window: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of (earlier item, later item, gap, strength) of all pairs within a history and the window."""
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    columns, strengths = histories.columns, histories.strengths
    window = min(window, int(histories.lengths.max(initial=1)) - 1)
    gaps_per_block = max(_PAIRS_PER_BLOCK // max(len(columns), 1), 1)
    for first in range(1, window + 1, gaps_per_block):
        parts = []
        for gap in range(first, min(first + gaps_per_block, window + 1)):
            near = np.flatnonzero(user[gap:] == user[:-gap])  # newest first: entry + gap is the earlier one
            strength = strengths[near] * strengths[near + gap]
            parts.append((columns[near + gap], columns[near], np.full(len(near), gap), strength))
        earlier, later, gaps, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
        yield earlier, later, gaps, weights


def _regression(histories: Histories, items: int, config: ItemItemConfig, device: torch.device) -> Tensor:
    before = np.zeros(items * items)
    after = np.zeros(items * items)
    for earlier, later, gap, strength in _pairs(histories, config.window):
        cell = earlier * items + later
        before += np.bincount(cell, strength * np.exp2(-gap / config.half_life), items * items)
        after += np.bincount(cell, strength * np.exp2(-(gap - 1) / config.future_half_life), items * items)
    one_way = torch.from_numpy(before.reshape(items, items)).to(device)
    diagonal = torch.from_numpy(np.bincount(histories.columns, histories.strengths**2, items)).to(device)
    gram = one_way + one_way.T + torch.diag(diagonal + config.ridge * diagonal.mean().clamp(min=1e-9))
    return torch.linalg.solve(gram, torch.from_numpy(after.reshape(items, items)).to(device)).float()


def _strongest(weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    neighbours = weights.abs().topk(count, dim=1).indices
    return neighbours, weights.gather(1, neighbours)


def _scaled(histories: Histories, items: int, config: ItemItemConfig, count: int) -> tuple[Tensor, Tensor]:
    after = sparse.csr_matrix((items, items), dtype=np.float32)
    for earlier, later, gap, strength in _pairs(histories, config.large_window):
        value = (strength * np.exp2(-(gap - 1) / config.future_half_life)).astype(np.float32)
        after = after + sparse.coo_matrix((value, (earlier, later)), shape=(items, items)).tocsr()
    own = np.bincount(histories.columns, histories.strengths**2, items)
    scale = 1 / np.sqrt(own + config.ridge * max(own.mean(), 1e-9))
    after = (sparse.diags(scale) @ after @ sparse.diags(scale)).tocsr()
    return _strongest_sparse(after, count)


def _strongest_sparse(weights: sparse.csr_matrix, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row without a loop over rows: entries sorted by (row, -value), cut by rank."""
    items = weights.shape[0]
    row = np.repeat(np.arange(items), np.diff(weights.indptr))
    order = np.lexsort((-weights.data, row))
    rank = np.arange(len(row)) - weights.indptr[row]
    kept = rank < count
    neighbours = np.zeros((items, count), dtype=np.int64)
    values = np.zeros((items, count), dtype=np.float32)
    neighbours[row[kept], rank[kept]] = weights.indices[order][kept]
    values[row[kept], rank[kept]] = weights.data[order][kept]
    return torch.from_numpy(neighbours), torch.from_numpy(values)
