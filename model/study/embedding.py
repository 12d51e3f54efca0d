"""An item embedding from the interactions alone, for the clusters of the latent variants.

Legend: B users, I items, E width of the embedding.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.sparse.linalg import svds
from torch import Tensor

from model.batch import Histories

__all__ = ["item_embedding"]


def item_embedding(histories: Histories, items: int, width: int = 64) -> Tensor:
    """float32 [I, E] from the interactions alone: the right singular vectors of the degree-normalised matrix,
    scaled by their singular values, which is what linear graph convolution converges to (He et al. 2020)."""
    histories = histories.known()
    ones = np.ones(len(histories.columns))
    seen = sparse.csr_matrix((ones, histories.columns, histories.offsets), (len(histories), items))
    users = sparse.diags(1 / np.sqrt(np.maximum(histories.lengths, 1)))
    popularity = sparse.diags(1 / np.sqrt(np.maximum(np.bincount(histories.columns, minlength=items), 1)))
    width = min(width, min(seen.shape) - 1)
    _, values, vectors = svds(users @ seen @ popularity, k=width, v0=np.ones(min(seen.shape)))
    return torch.from_numpy(np.ascontiguousarray(vectors.T * values, dtype=np.float32))
