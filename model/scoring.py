"""Scores the catalogue from the network's output for users: output layer, item-item term, and their mixture.

The mixture is a weighted sum of two z-scores: for each term, a user's scores less their mean over the catalogue,
divided by their standard deviation. The catalogue is scored in blocks of items, so memory does not grow with users
times items.

Legend: B users, I items, L places of a history, N neighbours of an item, H numbers per user that the output layer
reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from model.config import ModelConfig
from model.denoiser import column_major
from model.latent import LatentChain, LatentDenoiser
from model.network import Network
from model.sampler import HiddenChain
from model.schedule import NoiseSchedule

__all__ = ["DEFAULT_LIMITS", "CatalogueScorer", "ItemItemTerm", "Limits", "Precision", "largest", "mean_and_std"]

Precision = Literal["float32", "tf32", "bfloat16"]

_RUN = 64  # adjacent items whose maximum represents them all while the K best are looked for


@dataclass(frozen=True)
class Limits:
    """Sizes that bound the memory of scoring; they change no score by more than rounding."""

    scores: int = 1 << 24  # dense scores held at a time: 64 MiB
    places: int = 1 << 22  # padded history places held at a time
    items: int = 1 << 17  # larger catalogues are scored in blocks of this many items
    small_catalogue: int = 4096  # up to this many items the item-item term is held as a matrix: 64 MiB at most
    neighbours: int = 1 << 21  # neighbours of histories gathered at a time: 24 MiB with their weights


DEFAULT_LIMITS = Limits()


class CatalogueScorer:
    """Scores of a block of users by blocks of items: the reverse chain, the output layer, and the item-item term."""

    def __init__(
        self,
        network: Network,
        config: ModelConfig,
        neighbours: Tensor | None,
        neighbour_weights: Tensor | None,
        precision: Precision,
        limits: Limits,
    ) -> None:
        device = network.decode.weight.device
        schedule = NoiseSchedule(config.schedule).to(device)
        self.chain: HiddenChain | LatentChain
        if isinstance(network, LatentDenoiser):
            self.chain = LatentChain(network, schedule)
        else:
            self.chain = HiddenChain(network, schedule, config.prediction)
        self.items, self.limits = network.items, limits
        self.output = OutputLayer(network.decode.weight, network.decode.bias, precision, limits)
        self.item_item: ItemItemTerm | None = None
        self.share = config.item_item.share
        if neighbours is not None and neighbour_weights is not None and self.share > 0:
            half_life = config.item_item.half_life
            self.item_item = ItemItemTerm(neighbours.to(device), neighbour_weights.to(device), half_life, limits)

    @property
    def in_one_block(self) -> bool:
        """Whether the catalogue is one small block: moments are then computed faster from the block's scores."""
        return self.items <= min(self.limits.small_catalogue, self.limits.items)

    def blocks(
        self, columns: Tensor, strengths: Tensor, weights: Tensor, seen_users: Tensor, seen: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """(first item, scores [B, items of the block]) over the catalogue, -inf where `seen_users` have `seen` an item.

        Places [B, L] hold columns, strengths and the network's input weights, both 0 where padded; L is at least 1.
        Code in here is traced for one batch and then used for batches of every shape, so sizes come from `shape`:
        `len` of a tensor is a constant to the tracer.
        """
        state = self.chain.run(columns, weights)
        sums = None if self.item_item is None else self.item_item.prepare(columns, strengths)
        moments = None if sums is None or self.in_one_block else self.output.mean_and_std(state.v, state.u)
        for first in range(0, max(self.items, 1), self.limits.items):
            last = min(first + self.limits.items, self.items)
            # s x_0 is left out: it is zero except at seen items, which are masked.
            block = self.output.scores(state.v, state.u, first, last)
            if sums is not None:
                sums.mix_into(block, first, self.share, *(moments or mean_and_std(block)))
            if last - first == self.items:
                block[seen_users, seen] = -torch.inf
            else:
                inside = (seen >= first) & (seen < last)
                block[seen_users[inside], seen[inside] - first] = -torch.inf
            yield first, block

    def terms(self, columns: Tensor, strengths: Tensor, weights: Tensor, wanted: Tensor) -> Tensor:
        """[B, M, 2]: z-scores of the network and of the item-item term (0 without one) for items `wanted` [B, M].

        Places are those of `blocks`. Nothing is masked.
        """
        if self.in_one_block:  # one product costs less than gathering rows
            everything = self.all_terms(columns, strengths, weights)
            return torch.stack([term.gather(1, wanted) for term in everything], -1)
        state = self.chain.run(columns, weights)
        mean, deviation = self.output.mean_and_std(state.v, state.u)
        network = self.output.at(state.v, state.u, wanted).sub_(mean).div_(deviation)
        if self.item_item is None:
            return torch.stack([network, torch.zeros_like(network)], -1)
        return torch.stack([network, self.item_item.prepare(columns, strengths).standardised(wanted)], -1)

    def best_with_terms(
        self, k: int, columns: Tensor, strengths: Tensor, weights: Tensor, seen_users: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The best columns and their scores [B, K], and `all_terms`, of a catalogue that is one block.

        Only for a model with an item-item term: without one, scores are not z-scores.
        """
        network, item_item = self.all_terms(columns, strengths, weights)
        block = torch.lerp(network, item_item, self.share)
        block[seen_users, seen] = -torch.inf
        values, best = largest(block, min(k, self.items))
        return best, values, network, item_item

    def all_terms(self, columns: Tensor, strengths: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The z-scores [B, I] of the network and of the item-item term for every item of a catalogue that is one
        block."""
        state = self.chain.run(columns, weights)
        network = self.output.scores(state.v, state.u, 0, self.items)
        mean, deviation = mean_and_std(network)
        network.sub_(mean).div_(deviation)
        if self.item_item is None:
            return network, torch.zeros_like(network)
        return network, self.item_item.prepare(columns, strengths).all_standardised()


class OutputLayer:
    """Scores Wo v + u bo, and their mean and deviation over the catalogue from moments that are computed once."""

    def __init__(self, weight: Tensor, bias: Tensor, precision: Precision, limits: Limits) -> None:
        self._precision = precision
        self._weight = weight.bfloat16() if precision == "bfloat16" else weight  # [I, H]
        if len(weight) <= limits.small_catalogue:  # the copy of a large one would need too much memory
            self._weight = column_major(self._weight)
        self._bias = bias
        items, hidden = max(len(weight), 1), weight.shape[1]
        self.mean, self._bias_mean = weight.mean(0), bias.mean()
        second = torch.zeros(hidden + 1, hidden + 1, dtype=torch.float64, device=weight.device)
        for first in range(0, len(weight), limits.items):
            rows = slice(first, first + limits.items)
            outer = torch.cat([weight[rows] - self.mean, (bias[rows] - self._bias_mean)[:, None]], 1)
            second += (outer.T @ outer).double() / items
        self._second = second[:hidden, :hidden].float()  # [H, H]
        self._cross = second[:hidden, hidden].float()  # [H]
        self._bias_variance = second[hidden, hidden].float()

    def scores(self, v: Tensor, u: float, first: int, last: int) -> Tensor:
        """[B, last - first]"""
        weight, bias = self._weight[first:last], self._bias[first:last]
        if self._precision == "bfloat16":
            return torch.mm(v.bfloat16(), weight.T).float().add_(bias, alpha=u)
        if self._precision == "tf32" and v.is_cuda:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("high")
            try:
                return torch.mm(v, weight.T).add_(bias, alpha=u)
            finally:
                torch.set_float32_matmul_precision(before)
        return torch.mm(v, weight.T).add_(bias, alpha=u)

    def at(self, v: Tensor, u: float, columns: Tensor) -> Tensor:
        """[B, K]: the scores of items `columns` [B, K] alone."""
        rows = self.rows(columns.flatten()).unflatten(0, columns.shape)  # [B, K, H]
        return torch.einsum("bh,bkh->bk", v, rows) + u * self._bias[columns]

    def rows(self, columns: Tensor) -> Tensor:
        """float32 [n, H]"""
        return self._weight[columns].float()

    def mean_and_std(self, v: Tensor, u: float) -> tuple[Tensor, Tensor]:
        """(mean, deviation) [B, 1] of a user's scores over all items."""
        mean = v @ self.mean + u * self._bias_mean
        variance = ((v @ self._second) * v).sum(1) + 2 * u * (v @ self._cross) + u * u * self._bias_variance
        return mean[:, None], variance.clamp(min=1e-12).sqrt()[:, None]


class ItemItemTerm:
    """Scores of the item-item term: each of a user's newest items adds its weights to its neighbours."""

    def __init__(self, neighbours: Tensor, weights: Tensor, half_life: float, limits: Limits) -> None:
        self.items, self.limits = len(neighbours), limits
        self.neighbours, self.weights = neighbours, weights  # [I, N] twice
        self.horizon = math.ceil(8 * half_life)  # places that count: 2^-8 of the newest one's weight is left there
        self._decay = torch.exp2(-torch.arange(self.horizon, device=weights.device) / half_life)  # by place
        # Whole rows of a small catalogue are added up faster than their neighbours are looked up.
        self.dense: Tensor | None = None  # [I, I]
        if len(neighbours) <= limits.small_catalogue:
            empty = torch.zeros(len(neighbours), len(neighbours), device=weights.device)
            self.dense = empty.scatter_add_(1, neighbours, weights)

    def prepare(self, columns: Tensor, strengths: Tensor) -> _NeighbourSums:
        """For places [B, L], whose strengths are 0 where padded."""
        columns, strengths = columns[:, : self.horizon], strengths[:, : self.horizon]
        return _NeighbourSums(self, columns.contiguous(), strengths * self._decay[: columns.shape[1]])


class _NeighbourSums:
    """The term for one block of users, by blocks of items."""

    def __init__(self, term: ItemItemTerm, columns: Tensor, weights: Tensor) -> None:
        self._term, self._columns, self._weights = term, columns, weights
        items, block_items = term.items, term.limits.items
        self._whole: Tensor | None = None
        if term.dense is not None and items <= block_items:
            self._whole = self.sums(0, items)
            self._mean, self._deviation = mean_and_std(self._whole)
            return
        total = torch.zeros(len(columns), 2, dtype=torch.float64, device=columns.device)
        for first in range(0, items, block_items):
            block = self.sums(first, min(first + block_items, items))
            total += torch.stack([block.sum(1), block.square().sum(1)], 1)
            self._whole = block if items <= block_items else None
        mean = total[:, :1] / max(items, 1)
        self._mean = mean.float()
        self._deviation = (total[:, 1:] / max(items, 1) - mean.square()).clamp(min=1e-12).sqrt().float()

    def sums(self, first: int, last: int) -> Tensor:
        """[B, last - first]: the plain scores of items first .. last - 1."""
        term = self._term
        if term.dense is not None:
            rows = term.dense[:, first:last]
            return functional.embedding_bag(self._columns, rows, per_sample_weights=self._weights, mode="sum")
        sums = torch.zeros(len(self._columns), last - first, device=self._columns.device)
        whole = first == 0 and last == len(term.neighbours)
        width = term.neighbours.shape[1]
        positions = max(term.limits.neighbours // max(len(self._columns) * width, 1), 1)
        for start in range(0, self._columns.shape[1], positions):
            columns = self._columns[:, start : start + positions]
            neighbours = term.neighbours[columns].flatten(1)  # [B, P N]
            values = term.weights[columns].mul_(self._weights[:, start : start + positions, None]).flatten(1)
            if not whole:
                neighbours -= first
                inside = (neighbours >= 0) & (neighbours < last - first)
                neighbours, values = neighbours.clamp_(0, last - first - 1), values.mul_(inside)
            sums.scatter_add_(1, neighbours, values)
        return sums

    def standardised(self, columns: Tensor) -> Tensor:
        """[B, K]: the z-scores of items `columns` [B, K] alone."""
        if self._whole is not None:
            found = self._whole.gather(1, columns)
        else:
            found = torch.zeros(columns.shape, device=columns.device)
            for first in range(0, self._term.items, self._term.limits.items):
                last = min(first + self._term.limits.items, self._term.items)
                inside = (columns >= first) & (columns < last)
                block = self.sums(first, last).gather(1, (columns - first).clamp(0, last - first - 1))
                found = torch.where(inside, block, found)
        return (found - self._mean) / self._deviation

    def all_standardised(self) -> Tensor:
        """[B, I]: the z-scores of all items of one block."""
        whole = self._whole if self._whole is not None else self.sums(0, self._term.items)
        return (whole - self._mean) / self._deviation

    def mix_into(self, block: Tensor, first: int, share: float, mean: Tensor, deviation: Tensor) -> None:
        """Turn a block of scores into z-scores by their `mean` and `deviation` [B, 1], and mix in those of the term."""
        sums = self._whole if self._whole is not None else self.sums(first, first + block.shape[1])
        network, neighbours = (1 - share) / deviation, share / self._deviation
        block.mul_(network).addcmul_(sums, neighbours).sub_(mean * network + self._mean * neighbours)


def mean_and_std(scores: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, deviation) [B, 1] of scores [B, I]."""
    mean = scores.mean(1, keepdim=True)
    square = scores.norm(dim=1, keepdim=True).square() / scores.shape[1]
    return mean, (square - mean.square()).clamp(min=1e-12).sqrt()


def largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest of each row and their columns, as `topk` gives them: NaN counts as larger than anything.

    `topk` copies and partly sorts all scores. Here a large row is read only once, for the maxima of its runs: the k
    largest scores lie in the runs with the k largest maxima, or in the remainder at the end.
    """
    runs = scores.shape[1] // _RUN
    if runs < 8 * k:
        best = scores.topk(k, dim=1)
        return best.values, best.indices
    whole = scores[:, : runs * _RUN].unflatten(1, (runs, _RUN))
    chosen = whole.amax(2).topk(k, dim=1).indices[:, :, None]  # [B, k, 1]
    places = torch.arange(_RUN, device=scores.device)
    columns = (chosen * _RUN + places).flatten(1)  # [B, k RUN]
    rest = torch.arange(runs * _RUN, scores.shape[1], device=scores.device).expand(scores.shape[0], -1)
    columns = torch.cat([columns, rest], 1)
    best = scores.gather(1, columns).topk(k, dim=1)
    return best.values, columns.gather(1, best.indices)
