"""A fitted model that ranks: frozen, safe to read from several threads.

Legend: B users, I items, K recommended, L places of a history, H numbers per user that the output layer reads.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.batch import Histories, Padded
from model.config import ModelConfig
from model.denoiser import Denoiser, column_major
from model.errors import ModelError, NonFiniteScores
from model.items import ItemIndex
from model.latent import LatentChain, LatentDenoiser
from model.sampler import HiddenChain
from model.schedule import NoiseSchedule

__all__ = ["Network", "Precision", "Ranked", "Recommender"]

Network = Denoiser | LatentDenoiser
Precision = Literal["float32", "tf32", "bfloat16"]

_SCORES_PER_BLOCK = 1 << 24  # dense scores held at a time: 64 MiB
_PLACES_PER_BLOCK = 1 << 22  # padded history places held at a time
_ITEMS_PER_BLOCK = 1 << 17  # catalogues larger than this are scored in parts
_SMALL_CATALOGUE = 4096  # up to this the item-item term is held as a matrix: 64 MiB at most
_RUN = 64  # neighbouring items whose best stands for them all while the K best are looked for
_NEIGHBOURS_PER_BLOCK = 1 << 21  # neighbours of histories gathered at a time: 24 MiB with their weights


@dataclass(frozen=True)
class Ranked:
    """Best first. A row with fewer than K unseen items ends in column -1 and score -inf."""

    columns: np.ndarray  # int64 [B, K]
    scores: np.ndarray  # float32 [B, K]


class Recommender:
    """Scores are, per user, the z-scores of the diffusion and of the item-item term mixed by the term's share.

    Memory does not grow with the users asked for, nor with users times items: users go in blocks, and for each the
    catalogue streams by in blocks while the best K are kept. `precision` is that of the one product with the output
    layer. On CUDA "tf32" rounds its factors to 10 bits (relative error of a score about 5e-4), "bfloat16" to 8 (about
    4e-3, scores too); "float32" is exact to 1e-6.

    The network becomes the recommender's: nobody may change it afterwards. Raises `ModelError` when a parameter is NaN
    or infinite.
    """

    def __init__(
        self,
        version: str,
        items: ItemIndex,
        config: ModelConfig,
        network: Network,
        neighbours: Tensor | None = None,
        neighbour_weights: Tensor | None = None,
        *,
        precision: Precision = "float32",
    ) -> None:
        if network.items != len(items):
            raise ModelError(f"the model scores {network.items} items, its index names {len(items)}")
        named = [*network.named_parameters(), *([("neighbour_weights", neighbour_weights)] * (neighbours is not None))]
        for name, parameter in named:
            if parameter is not None and not bool(torch.isfinite(parameter).all()):
                raise ModelError(f"model {version}: parameter {name} has NaN or infinite values; do not serve it")
        if precision not in ("float32", "tf32", "bfloat16"):
            raise ValueError(f"precision must be float32, tf32 or bfloat16, got {precision!r}")
        self.version, self.items, self.config, self.precision = version, items, config, precision
        self.device = network.decode.weight.device
        network = network.eval().requires_grad_(False)
        schedule = NoiseSchedule(config.schedule).to(self.device)
        self._chain: HiddenChain | LatentChain
        if isinstance(network, LatentDenoiser):
            self._chain = LatentChain(network, schedule)
        else:
            self._chain = HiddenChain(network, schedule, config.prediction)
        self._output = _Output(network.decode.weight, network.decode.bias, precision)
        self._item_item: _ItemItem | None = None
        if neighbours is not None and neighbour_weights is not None and config.item_item.share > 0:
            half_life = config.item_item.half_life
            self._item_item = _ItemItem(neighbours.to(self.device), neighbour_weights.to(self.device), half_life)
        self._graphs: dict[int, Callable[..., tuple[Tensor, Tensor]]] = {}  # by k
        self._falling: Tensor | None = None  # [L], where the weight of an interaction is its place's alone
        self._reach = config.weighting.reach(2**-16)  # places that either term looks at
        if self._reach is not None:
            self._reach = max(self._reach, self._item_item.reach if self._item_item is not None else 0)
            place = torch.arange(self._reach, device=self.device)
            self._falling = config.weighting(place, torch.tensor([self._reach], device=self.device))[0]

    @torch.inference_mode()
    def rank(self, histories: Histories, k: int) -> Ranked:
        """The best `k` items [B, K] that each of B users has not interacted with (algorithm 2 of the paper, no noise).

        Raises `NonFiniteScores`.
        """
        histories = histories.known()
        columns = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for rows, block in self._user_blocks(histories):
            best, values = (found.cpu().numpy() for found in self._best(block, k))
            if not (values < np.inf).all():  # which is false of NaN too
                raise NonFiniteScores(f"model {self.version} gave NaN or infinite scores")
            width = values.shape[1]
            columns[rows, :width] = np.where(values == -np.inf, -1, best)
            scores[rows, :width] = values
        return Ranked(columns, scores)

    @torch.inference_mode()
    def scores(self, histories: Histories) -> Tensor:
        """[B, I] with -inf at seen items: for small catalogues and few users; `rank` is what serves."""
        histories = histories.known()
        total = torch.empty(len(histories), len(self.items), device=self.device)
        for rows, users in self._user_blocks(histories):
            for first, block in self._scored(users):
                total[rows, first : first + block.shape[1]] = block
        return total

    def vectors(self, columns: np.ndarray) -> np.ndarray:
        """float32 [n, H]: what the output layer holds of these items; like items have like vectors."""
        return self._output.rows(torch.from_numpy(columns).to(self.device)).cpu().numpy()

    def _user_blocks(self, histories: Histories) -> Iterator[tuple[np.ndarray, Histories]]:
        """Rows, and their histories, in blocks of like length that bound both the padded histories and the dense
        scores."""
        lengths = histories.lengths
        most = max(_SCORES_PER_BLOCK // max(min(len(self.items), _ITEMS_PER_BLOCK), 1), 1)
        if 0 < len(lengths) <= min(most, _PLACES_PER_BLOCK // max(int(lengths.max()), 1)):
            yield np.arange(len(lengths)), histories
            return
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            size = max(min(most, _PLACES_PER_BLOCK // max(int(lengths[order[start]]), 1)), 1)
            rows = np.sort(order[start : start + size])
            yield rows, histories.select(rows)
            start += size

    def _best(self, histories: Histories, k: int) -> tuple[Tensor, Tensor]:
        if self._recordable:
            return self._best_at_once(histories, k)
        columns = values = None
        for first, block in self._scored(histories):
            best, indices = _largest(block, min(k, block.shape[1]))
            if columns is None or values is None:
                columns, values = indices, best
                continue
            values = torch.cat([values, best], 1)
            columns = torch.cat([columns, indices + first], 1)
            if values.shape[1] > k:
                values, kept = values.topk(k, dim=1)
                columns = columns.gather(1, kept)
        assert columns is not None and values is not None  # there is a block, if an empty one
        return columns, values

    def _best_at_once(self, histories: Histories, k: int) -> tuple[Tensor, Tensor]:
        """`_best` of a small catalogue on a CPU, as one call of a recorded graph.

        Each of the hundred operators lets go of the interpreter and must win it back from the threads of the Kafka
        clients. Together that takes several times what they compute; a graph lets go once.
        """
        batch = self._padded(histories)
        given = batch.columns, batch.strengths, *self._seen(histories)
        graph = self._graphs.get(k)
        if graph is None:

            def rank_block(*given: Tensor) -> tuple[Tensor, Tensor]:  # the recorder wants a function with a name
                return self._rank_block(k, *given)

            with warnings.catch_warnings():
                # TorchScript is no longer developed. What replaces it needs a C++ compiler where it runs.
                warnings.filterwarnings("ignore", "`torch.jit.trace` is deprecated")
                warnings.filterwarnings("ignore", "Converting a tensor")  # in branches on the number of items
                graph = self._graphs[k] = torch.jit.trace(rank_block, given, check_trace=False)
        found: tuple[Tensor, Tensor] = graph(*given)
        return found

    def _rank_block(
        self, k: int, columns: Tensor, strengths: Tensor, seen_users: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Numbers of users and places are asked of `shape` in here: it is recorded for one and used for all, and `len`
        is a constant to the recorder."""
        assert self._falling is not None and self._item_item is not None
        state = self._chain.run(columns, self._falling[: columns.shape[1]] * strengths)
        near = self._item_item.prepare(columns, strengths)
        block = self._output.scores(state.v, state.u, 0, len(self.items))
        near.mix_into(block, 0, self.config.item_item.share, *_spread(block))
        block[seen_users, seen] = -torch.inf
        values, best = _largest(block, min(k, len(self.items)))
        return best, values

    @property
    def _recordable(self) -> bool:
        return (
            self.device.type == "cpu"
            and self._in_one_block
            and isinstance(self._chain, HiddenChain)
            and self._falling is not None
            and self._item_item is not None
            and hasattr(torch.jit, "trace")
        )

    def _padded(self, histories: Histories) -> Padded:
        """What both terms look at, at least one place wide."""
        batch = histories.padded(self.device, self._reach)
        return batch if batch.columns.shape[1] else _one_empty_place(batch)

    def _seen(self, histories: Histories) -> tuple[Tensor, Tensor]:
        """(row, column) of every interaction"""
        users = np.repeat(np.arange(len(histories)), histories.lengths)
        return torch.from_numpy(users).to(self.device), torch.from_numpy(histories.columns).to(self.device)

    def _scored(self, histories: Histories) -> Iterator[tuple[int, Tensor]]:
        """(first item, scores [B, items of the block]) over the catalogue, -inf at seen items."""
        batch = self._padded(histories)
        state = self._chain.run(batch.columns, self._weights(batch))
        share = self.config.item_item.share
        near = None if self._item_item is None else self._item_item.prepare(batch.columns, batch.strengths)
        spread = None if near is None or self._in_one_block else self._output.spread(state.v, state.u)
        seen_users, seen = self._seen(histories)
        for first in range(0, max(len(self.items), 1), _ITEMS_PER_BLOCK):
            last = min(first + _ITEMS_PER_BLOCK, len(self.items))
            # s x_0 is left out: it is zero except at seen items, which are masked.
            block = self._output.scores(state.v, state.u, first, last)
            if near is not None:
                near.mix_into(block, first, share, *(spread or _spread(block)))
            if last - first == len(self.items):
                block[seen_users, seen] = -torch.inf
            else:
                inside = (seen >= first) & (seen < last)
                block[seen_users[inside], seen[inside] - first] = -torch.inf
            yield first, block

    @property
    def _in_one_block(self) -> bool:
        """The block is the catalogue, and small: its spread is read from it faster than computed without it."""
        return len(self.items) <= min(_SMALL_CATALOGUE, _ITEMS_PER_BLOCK)

    def _weights(self, batch: Padded) -> Tensor:
        """float32 [B, L]"""
        places = batch.columns.shape[1]
        if self._falling is not None:
            return self._falling[:places] * batch.strengths  # which are 0 where padded
        place = torch.arange(places, device=self.device)
        return self.config.weighting(place, batch.lengths, batch.times_ms) * batch.strengths


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest of each row and their columns, as `topk` gives them: NaN counts as larger than anything.

    `topk` moves every score about. Here a large row is read once, for the maxima of its runs: the k largest lie in the
    runs with the k largest maxima, and in what is left over at the end.
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


def _spread(scores: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, deviation) [B, 1] of scores [B, I]."""
    mean = scores.mean(1, keepdim=True)
    square = scores.norm(dim=1, keepdim=True).square() / scores.shape[1]
    return mean, (square - mean.square()).clamp(min=1e-12).sqrt()


def _one_empty_place(batch: Padded) -> Padded:
    empty = torch.zeros(len(batch.lengths), 1, dtype=torch.int64, device=batch.columns.device)
    return Padded(empty, empty, empty.float(), batch.lengths)


class _Output:
    """The output layer: scores Wo v + u bo, and their mean and deviation over the catalogue from moments taken once."""

    def __init__(self, weight: Tensor, bias: Tensor, precision: Precision) -> None:
        self._precision = precision
        self._weight = weight.bfloat16() if precision == "bfloat16" else weight  # [I, H]
        if len(weight) <= _SMALL_CATALOGUE:  # of a large one, a copy would cost more memory than it saves time
            self._weight = column_major(self._weight)
        self._bias = bias
        items, hidden = max(len(weight), 1), weight.shape[1]
        self._mean, self._bias_mean = weight.mean(0), bias.mean()
        second = torch.zeros(hidden + 1, hidden + 1, dtype=torch.float64, device=weight.device)
        for first in range(0, len(weight), _ITEMS_PER_BLOCK):
            rows = slice(first, first + _ITEMS_PER_BLOCK)
            outer = torch.cat([weight[rows] - self._mean, (bias[rows] - self._bias_mean)[:, None]], 1)
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

    def rows(self, columns: Tensor) -> Tensor:
        """float32 [n, H]"""
        return self._weight[columns].float()

    def spread(self, v: Tensor, u: float) -> tuple[Tensor, Tensor]:
        """(mean, deviation) [B, 1] of a user's scores over all items."""
        mean = v @ self._mean + u * self._bias_mean
        variance = ((v @ self._second) * v).sum(1) + 2 * u * (v @ self._cross) + u * u * self._bias_variance
        return mean[:, None], variance.clamp(min=1e-12).sqrt()[:, None]


class _ItemItem:
    """Scores of the item-item term: each of a user's newest items adds its weights to its neighbours."""

    def __init__(self, neighbours: Tensor, weights: Tensor, half_life: float) -> None:
        self.items = len(neighbours)
        self.neighbours, self.weights = neighbours, weights  # [I, N] twice
        self.reach = math.ceil(8 * half_life)  # an exponential forgets: 2^-8 of the newest is left there
        self._falling = torch.exp2(-torch.arange(self.reach, device=weights.device) / half_life)  # by place
        # Whole rows of a small catalogue are added up faster than their neighbours are looked up.
        self.dense: Tensor | None = None  # [I, I]
        if len(neighbours) <= _SMALL_CATALOGUE:
            empty = torch.zeros(len(neighbours), len(neighbours), device=weights.device)
            self.dense = empty.scatter_add_(1, neighbours, weights)

    def prepare(self, columns: Tensor, strengths: Tensor) -> _Near:
        """For places [B, L], whose strengths are 0 where padded."""
        columns, strengths = columns[:, : self.reach], strengths[:, : self.reach]
        return _Near(self, columns.contiguous(), strengths * self._falling[: columns.shape[1]])


class _Near:
    """The term for one block of users, by blocks of items."""

    def __init__(self, term: _ItemItem, columns: Tensor, weights: Tensor) -> None:
        self._term, self._columns, self._weights = term, columns, weights
        items = term.items
        self._whole: Tensor | None = None
        if term.dense is not None and items <= _ITEMS_PER_BLOCK:
            self._whole = self._sums(0, items)
            self._mean, self._deviation = _spread(self._whole)
            return
        total = torch.zeros(len(columns), 2, dtype=torch.float64, device=columns.device)
        for first in range(0, items, _ITEMS_PER_BLOCK):
            block = self._sums(first, min(first + _ITEMS_PER_BLOCK, items))
            total += torch.stack([block.sum(1), block.square().sum(1)], 1)
            self._whole = block if items <= _ITEMS_PER_BLOCK else None
        mean = total[:, :1] / max(items, 1)
        self._mean = mean.float()
        self._deviation = (total[:, 1:] / max(items, 1) - mean.square()).clamp(min=1e-12).sqrt().float()

    def _sums(self, first: int, last: int) -> Tensor:
        term = self._term
        if term.dense is not None:
            rows = term.dense[:, first:last]
            return functional.embedding_bag(self._columns, rows, per_sample_weights=self._weights, mode="sum")
        sums = torch.zeros(len(self._columns), last - first, device=self._columns.device)
        whole = first == 0 and last == len(term.neighbours)
        width = term.neighbours.shape[1]
        positions = max(_NEIGHBOURS_PER_BLOCK // max(len(self._columns) * width, 1), 1)
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

    def mix_into(self, block: Tensor, first: int, share: float, mean: Tensor, deviation: Tensor) -> None:
        """Make a block of scores z-scores, by their `mean` and `deviation` [B, 1], and mix the term's into them."""
        sums = self._whole if self._whole is not None else self._sums(first, first + block.shape[1])
        own, near = (1 - share) / deviation, share / self._deviation
        block.mul_(own).addcmul_(sums, near).sub_(mean * own + self._mean * near)
