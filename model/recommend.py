"""A fitted model that ranks: frozen, and safe to read from several threads.

Legend: B users, I items, K recommended, L places of a history, H numbers per user that the output layer reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from model.batch import Histories, Padded
from model.config import ModelConfig
from model.errors import ModelError, NonFiniteScores
from model.items import ItemIndex
from model.network import Network
from model.ranker import Hidden, Ranked
from model.recorded import RecordedRanking
from model.rerank.reranker import Reranker
from model.scoring import DEFAULT_LIMITS, CatalogueScorer, Limits, Precision, largest

__all__ = ["Recommender"]


class Recommender:
    """Scores are, per user, the z-scores of the diffusion and of the item-item term mixed by the term's share.

    Memory does not grow with the number of users, nor with users times items: users are ranked in blocks, and for each
    of these the catalogue is scored in blocks while the best K are kept. `precision` is that of the product with the
    output layer. On CUDA, "tf32" rounds its factors to 10 bits (relative error of a score about 5e-4); "bfloat16"
    rounds factors and scores to 8 bits (about 4e-3); "float32" is exact to 1e-6.

    The recommender owns the network, which must not be changed afterwards. Raises `ModelError` when a parameter is NaN
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
        limits: Limits = DEFAULT_LIMITS,
        reranker: Reranker | None = None,
    ) -> None:
        if network.items != len(items):
            raise ModelError(f"the model scores {network.items} items, its index names {len(items)}")
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be float32, tf32 or bfloat16, got {precision!r}")
        _refuse_non_finite(version, network, neighbour_weights if neighbours is not None else None)
        self.version, self.items, self.config, self.precision = version, items, config, precision
        self.reranker = reranker  # orders the candidates of the second stage; None: the order of `rank` is served
        self.device = network.decode.weight.device
        network = network.eval().requires_grad_(False)
        self.scorer = CatalogueScorer(network, config, neighbours, neighbour_weights, precision, limits)
        self._decay: Tensor | None = None  # [L], where the weight of an interaction depends on its place alone
        self._horizon = config.weighting.horizon(2**-16)  # places that either term looks at
        self._recorded: RecordedRanking | None = None
        if self._horizon is not None:
            item_item = self.scorer.item_item
            self._horizon = max(self._horizon, item_item.horizon if item_item is not None else 0)
            place = torch.arange(self._horizon, device=self.device)
            self._decay = config.weighting(place, torch.tensor([self._horizon], device=self.device))[0]
            if RecordedRanking.supports(self.scorer, self.device):
                self._recorded = RecordedRanking(self.scorer, self._decay)

    @torch.inference_mode()
    def rank(self, histories: Histories, k: int, hidden: Hidden | None = None) -> Ranked:
        """The best `k` items [B, K] for each of B users (algorithm 2 of the paper, no noise), without the `hidden`
        ones: by default, the items that the user has met.

        Raises `NonFiniteScores`.
        """
        if hidden is None:
            histories = histories.known()
            hidden = Hidden.met(histories)
        histories = histories.known()
        columns = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        for rows, block in self._user_blocks(histories):
            best, values = (found.cpu().numpy() for found in self._best(block, k, _masked(hidden, rows, self.device)))
            width = values.shape[1]
            columns[rows, :width], scores[rows, :width] = self._finite(best, values)
        return Ranked(columns, scores)

    @torch.inference_mode()
    def rank_with_terms(
        self, histories: Histories, k: int, hidden: Hidden | None = None
    ) -> tuple[Ranked, Callable[[np.ndarray], np.ndarray]]:
        """`rank`, and a function that gives `terms` of the same users. It costs little more than `rank` for a catalogue
        of one block, because the scores of all items are computed anyway.

        Raises `NonFiniteScores`.
        """
        known = histories.known()
        hidden = Hidden.met(known) if hidden is None else hidden
        blocks = list(self._user_blocks(known))
        if len(blocks) != 1 or len(self.items) > self.scorer.limits.items or self.scorer.item_item is None:
            return self.rank(histories, k, hidden), lambda wanted: self.terms(histories, wanted)
        batch, masked = self.padded(known), _masked(hidden, None, self.device)
        if self._recorded is not None:
            found = self._recorded.best_with_terms(k, batch.columns, batch.strengths, *masked)
        else:
            found = self.scorer.best_with_terms(k, batch.columns, batch.strengths, self.weights(batch), *masked)
        best, values, *terms = (tensor.cpu().numpy() for tensor in found)
        columns, scores = self._finite(best, values)

        def at(wanted: np.ndarray) -> np.ndarray:
            place = np.maximum(wanted, 0)
            of = np.stack([np.take_along_axis(term, place, 1) for term in terms], -1)
            of[wanted < 0] = np.nan
            return of

        missing = [(0, 0), (0, k - columns.shape[1])]
        padded = np.pad(columns, missing, constant_values=-1), np.pad(scores, missing, constant_values=-np.inf)
        return Ranked(*padded), at

    @torch.inference_mode()
    def scores(self, histories: Histories) -> Tensor:
        """Scores [B, I] with -inf at seen items, for small catalogues and few users; lists are made by `rank`."""
        histories = histories.known()
        total = torch.empty(len(histories), len(self.items), device=self.device)
        for rows, users in self._user_blocks(histories):
            for first, block in self._scored(users, _masked(Hidden.met(users), None, self.device)):
                total[rows, first : first + block.shape[1]] = block
        return total

    @torch.inference_mode()
    def terms(self, histories: Histories, wanted: np.ndarray) -> np.ndarray:
        """float32 [B, M, 2]: z-scores, over the catalogue, of the network and of the item-item term for a few items
        int64 [B, M] of each user; NaN where the item is -1. Raises `NonFiniteScores`."""
        histories = histories.known()
        found = np.full((*wanted.shape, 2), np.nan, dtype=np.float32)
        known = wanted >= 0
        if not known.any():
            return found
        for rows, users in self._user_blocks(histories):
            batch = self.padded(users)
            asked = torch.from_numpy(np.maximum(wanted[rows], 0)).to(self.device)
            found[rows] = self.scorer.terms(batch.columns, batch.strengths, self.weights(batch), asked).cpu().numpy()
        found[~known] = np.nan
        if not np.isfinite(found[known]).all():
            raise NonFiniteScores(f"model {self.version} gave NaN or infinite scores")
        return found

    def vectors(self, columns: np.ndarray, *, centred: bool = False) -> np.ndarray:
        """float32 [n, H]: the output layer's rows of these items, less the mean of all items if `centred`; similar
        items have similar vectors."""
        rows = self.scorer.output.rows(torch.from_numpy(columns).to(self.device))
        return (rows - self.scorer.output.mean if centred else rows).cpu().numpy()

    def _finite(self, columns: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(Columns, with -1 where no item is left; values). Raises `NonFiniteScores`."""
        if not (values < np.inf).all():  # which is false of NaN too
            raise NonFiniteScores(f"model {self.version} gave NaN or infinite scores")
        return np.where(values == -np.inf, -1, columns), values

    def _user_blocks(self, histories: Histories) -> Iterator[tuple[np.ndarray, Histories]]:
        """Rows, and their histories, in blocks of similar length that bound both the padded histories and the dense
        scores."""
        limits, lengths = self.scorer.limits, histories.lengths
        most = max(limits.scores // max(min(len(self.items), limits.items), 1), 1)
        if 0 < len(lengths) <= min(most, limits.places // max(int(lengths.max()), 1)):
            yield np.arange(len(lengths)), histories
            return
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            size = max(min(most, limits.places // max(int(lengths[order[start]]), 1)), 1)
            rows = np.sort(order[start : start + size])
            yield rows, histories.select(rows)
            start += size

    def _best(self, histories: Histories, k: int, masked: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if self._recorded is not None:
            batch = self.padded(histories)
            return self._recorded.best(k, batch.columns, batch.strengths, *masked)
        columns = values = None
        for first, block in self._scored(histories, masked):
            best, indices = largest(block, min(k, block.shape[1]))
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

    def _scored(self, histories: Histories, masked: tuple[Tensor, Tensor]) -> Iterator[tuple[int, Tensor]]:
        """(first item, scores [B, items of the block]) over the catalogue, -inf at (row, column) of `masked`."""
        batch = self.padded(histories)
        return self.scorer.blocks(batch.columns, batch.strengths, self.weights(batch), *masked)

    def padded(self, histories: Histories) -> Padded:
        """The places that either term looks at, at least one place wide."""
        batch = histories.padded(self.device, self._horizon)
        if batch.columns.shape[1]:
            return batch
        empty = torch.zeros(len(batch.lengths), 1, dtype=torch.int64, device=self.device)
        return Padded(empty, empty, empty.float(), batch.lengths)

    def weights(self, batch: Padded) -> Tensor:
        """float32 [B, L]: what the network reads at each place."""
        places = batch.columns.shape[1]
        if self._decay is not None:
            return self._decay[:places] * batch.strengths  # which are 0 where padded
        place = torch.arange(places, device=self.device)
        return self.config.weighting(place, batch.lengths, batch.times_ms) * batch.strengths


def _masked(hidden: Hidden, rows: np.ndarray | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """(Rows, columns) of the items that are hidden from a block of the users `rows`, in order; None for all users."""
    found, columns = hidden
    if rows is not None and len(found):
        place = np.full(max(int(found.max()), int(rows.max(initial=0))) + 1, -1)
        place[rows] = np.arange(len(rows))
        found, inside = place[found], place[found] >= 0
        found, columns = found[inside], columns[inside]
    return torch.from_numpy(found).to(device), torch.from_numpy(columns).to(device)


def _refuse_non_finite(version: str, network: Network, neighbour_weights: Tensor | None) -> None:
    named = [*network.named_parameters(), ("neighbour_weights", neighbour_weights)]
    for name, parameter in named:
        if parameter is not None and not bool(torch.isfinite(parameter).all()):
            raise ModelError(f"model {version}: parameter {name} has NaN or infinite values; do not serve it")
