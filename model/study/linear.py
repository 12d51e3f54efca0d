"""Linear baselines with one interface: `fit(histories)`, then `rank(histories, k)`.

Legend: B users, I items, K recommended, N neighbours kept per item.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import scipy.sparse as sparse
import torch

from model.batch import Histories
from model.item_item import ItemItemConfig, item_item_weights
from model.items import ItemIndex
from model.ranker import Ranked
from model.scoring import DEFAULT_LIMITS, ItemItemTerm
from model.weighting import Weighting

__all__ = ["CoVisit", "Ease", "ItemItemAlone", "ItemKnn", "interaction_matrix", "top_unseen"]

_SCORES_PER_BLOCK = 1 << 24
_DENSE_ITEMS = 30_000  # inverting more items takes tens of GiB and hours


def interaction_matrix(histories: Histories, items: int, weighting: Weighting) -> sparse.csr_matrix:
    """float32 [B, I]: each user's weighted interactions."""
    histories = histories.known()
    if not len(histories.columns):
        return sparse.csr_matrix((len(histories), items), dtype=np.float32)
    batch = histories.padded(torch.device("cpu"))
    place = torch.arange(batch.columns.shape[1]).expand_as(batch.columns)
    weights = (weighting(place, batch.lengths, batch.times_ms) * batch.strengths)[batch.valid]
    return sparse.csr_matrix((weights.numpy(), histories.columns, histories.offsets), (len(histories), items))


def top_unseen(scores: torch.Tensor, histories: Histories, k: int) -> Ranked:
    """The best `k` items by dense scores [B, I], without those in each user's history."""
    rows = np.repeat(np.arange(len(histories)), histories.lengths)
    scores[torch.from_numpy(rows), torch.from_numpy(histories.columns)] = -torch.inf
    columns = np.full((len(histories), k), -1, dtype=np.int64)
    values = np.full((len(histories), k), -np.inf, dtype=np.float32)
    top = scores.topk(min(k, scores.shape[1]), dim=1)
    unseen = torch.isfinite(top.values)
    columns[:, : unseen.shape[1]] = top.indices.masked_fill(~unseen, -1).numpy()
    values[:, : unseen.shape[1]] = top.values.numpy()
    return Ranked(columns, values)


class _Linear:
    """Scores are a user's weighted interactions times an item-item matrix B [I, I], dense or sparse."""

    def __init__(self, items: ItemIndex, weighting: Weighting | None = None) -> None:
        self.items, self.weighting = items, weighting or Weighting()
        self.weights: np.ndarray | sparse.csr_matrix = np.zeros((len(items), len(items)), dtype=np.float32)

    def _input(self, histories: Histories) -> sparse.csr_matrix:
        return interaction_matrix(histories, len(self.items), self.weighting)

    def rank(self, histories: Histories, k: int) -> Ranked:
        """Columns and scores [B, K] of the best unseen items by x B, x [B, I] the weighted interactions."""
        histories = histories.known()
        columns = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        size = max(_SCORES_PER_BLOCK // max(len(self.items), 1), 1)
        for start in range(0, len(histories), size):
            rows = np.arange(start, min(start + size, len(histories)))
            part = histories.select(rows)
            product = self._input(part) @ self.weights
            dense = product.toarray() if sparse.issparse(product) else product
            ranked = top_unseen(torch.from_numpy(np.ascontiguousarray(dense, dtype=np.float32)), part, k)
            columns[rows], scores[rows] = ranked.columns, ranked.scores
        return Ranked(columns, scores)


class Ease(_Linear):
    """EASE^R: B = I - P diag(P)^-1 with P = (X'X + ridge)^-1 (Steck 2019, equation 8).

    `weighting` applies to the input when ranking; X'X counts every interaction once.
    """

    def __init__(self, items: ItemIndex, weighting: Weighting | None = None, ridge: float = 500.0) -> None:
        super().__init__(items, weighting)
        if ridge <= 0:
            raise ValueError(f"ridge must be positive, got {ridge}")
        self.ridge = ridge

    def fit(self, histories: Histories) -> Self:
        """B [I, I] from B histories, by one inverse in closed form. Raises ValueError for too many items."""
        if len(self.items) > _DENSE_ITEMS:
            gib = 8 * len(self.items) ** 2 / 2**30
            raise ValueError(
                f"EASE^R would invert {len(self.items)} x {len(self.items)} items, {gib:.0f} GiB: leave it out"
            )
        seen = interaction_matrix(histories, len(self.items), Weighting())
        gram = torch.from_numpy((seen.T @ seen).toarray().astype(np.float64))
        gram.diagonal().add_(self.ridge)
        inverse = torch.linalg.inv(gram)
        weights = -inverse / inverse.diagonal()
        weights.fill_diagonal_(0.0)
        self.weights = weights.float().numpy()
        return self


class ItemKnn(_Linear):
    """Cosine similarity of items with shrinkage, N nearest kept (Deshpande and Karypis 2004)."""

    def __init__(
        self, items: ItemIndex, weighting: Weighting | None = None, neighbours: int = 100, shrinkage: float = 20.0
    ) -> None:
        super().__init__(items, weighting)
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        self.neighbours, self.shrinkage = neighbours, shrinkage

    def fit(self, histories: Histories) -> Self:
        """B [I, I], sparse: the cosine of two items' user sets, shrunk, N neighbours of each scored item."""
        seen = interaction_matrix(histories, len(self.items), Weighting())
        together = (seen.T @ seen).toarray()
        norms = np.sqrt(together.diagonal())
        similar = together / (norms[:, None] * norms + self.shrinkage)
        np.fill_diagonal(similar, 0.0)
        if self.neighbours < len(self.items):  # for each scored item, its N most similar items
            least = np.partition(similar, -self.neighbours, axis=0)[-self.neighbours]
            similar[similar < least] = 0.0
        self.weights = sparse.csr_matrix(similar.astype(np.float32))
        return self


class CoVisit(_Linear):
    """Ranks the items that most often followed the user's last item within `window` places; popularity breaks ties."""

    def __init__(self, items: ItemIndex, window: int = 3) -> None:
        super().__init__(items)
        if window < 1:
            raise ValueError(f"window must be at least 1, got {window}")
        self.window = window
        self._popularity: np.ndarray = np.zeros(len(items), dtype=np.float32)

    def _input(self, histories: Histories) -> sparse.csr_matrix:
        return interaction_matrix(histories.newest(1), len(self.items), Weighting())

    def fit(self, histories: Histories) -> Self:
        """B [I, I]: how often j came at most `window` places after i, and a share of popularity below 1."""
        histories = histories.known()
        items = len(self.items)
        user = np.repeat(np.arange(len(histories)), histories.lengths)
        counts = sparse.csr_matrix((items, items), dtype=np.float32)
        for gap in range(1, self.window + 1):
            near = np.flatnonzero(user[gap:] == user[:-gap])  # newest first: entry + gap came before entry
            pairs = (histories.columns[near + gap], histories.columns[near])
            counts = counts + sparse.csr_matrix((np.ones(len(near), np.float32), pairs), shape=(items, items))
        popularity = np.bincount(histories.columns, minlength=items).astype(np.float32)
        self._popularity = popularity / max(float(popularity.max(initial=0)) * 2, 1.0)
        self.weights = counts.toarray() + self._popularity
        return self


class ItemItemAlone:
    """The item-item term of the served model without the network: the baseline that the diffusion must improve."""

    def __init__(self, items: ItemIndex, config: ItemItemConfig, device: torch.device) -> None:
        self.items, self.config, self._device = items, config, device
        self._term: ItemItemTerm | None = None

    def fit(self, histories: Histories) -> Self:
        """The term's weights from B histories."""
        neighbours, weights = item_item_weights(histories.known(), len(self.items), self.config, self._device)
        on_device = neighbours.to(self._device), weights.to(self._device)
        self._term = ItemItemTerm(*on_device, self.config.half_life, DEFAULT_LIMITS)
        return self

    @torch.inference_mode()
    def rank(self, histories: Histories, k: int) -> Ranked:
        """Columns and scores [B, K] of the best unseen items by the term's scores."""
        if self._term is None:
            raise ValueError("fit comes before rank")
        histories = histories.known()
        columns = np.full((len(histories), k), -1, dtype=np.int64)
        scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
        size = max(_SCORES_PER_BLOCK // max(len(self.items), 1), 1)
        for start in range(0, len(histories), size):
            rows = np.arange(start, min(start + size, len(histories)))
            part = histories.select(rows)
            batch = part.padded(self._device, self._term.horizon)
            if batch.columns.shape[1]:
                dense = self._term.prepare(batch.columns, batch.strengths).sums(0, len(self.items)).cpu()
            else:
                dense = torch.zeros(len(part), len(self.items))
            ranked = top_unseen(dense, part, k)
            columns[rows], scores[rows] = ranked.columns, ranked.scores
        return Ranked(columns, scores)

    @torch.inference_mode()
    def terms(self, histories: Histories, wanted: np.ndarray) -> np.ndarray:
        """float32 [B, M, 2] as from `Recommender.terms`, with 0 instead of the network's z-scores."""
        if self._term is None:
            raise ValueError("fit comes before terms")
        found = np.zeros((*wanted.shape, 2), dtype=np.float32)
        batch = histories.known().padded(self._device, self._term.horizon)
        if batch.columns.shape[1]:
            asked = torch.from_numpy(np.maximum(wanted, 0)).to(self._device)
            found[..., 1] = self._term.prepare(batch.columns, batch.strengths).standardised(asked).cpu().numpy()
        found[wanted < 0] = np.nan
        return found
