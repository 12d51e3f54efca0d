"""A reranker as bytes: its weights in safetensors, with the names of the features that it was trained with."""

from __future__ import annotations

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from model.errors import ArtifactError
from model.rerank.features import USER_FEATURES
from model.rerank.reranker import Reranker

__all__ = ["RERANKER_FILE", "read_reranker", "write_reranker"]

RERANKER_FILE = "reranker.msgpack"


class _Stored(msgspec.Struct, frozen=True):
    items: tuple[str, ...]  # names of the features of a candidate
    users: tuple[str, ...]  # and of a user
    weights: bytes


def write_reranker(reranker: Reranker, features: tuple[str, ...]) -> bytes:
    """The bytes of a reranker. `features` are the names of the features of a candidate."""
    weights = {name: values.detach().contiguous() for name, values in reranker.state_dict().items()}
    return msgspec.msgpack.encode(_Stored(features, USER_FEATURES, save(weights)))


def read_reranker(content: bytes, features: tuple[str, ...]) -> Reranker | None:
    """The reranker in these bytes. None when it needs other features than this Freshet has: the model's own lists are
    then served until the next round. Raises `ArtifactError` for bytes that `write_reranker` did not write, and for
    weights that are not finite."""
    try:
        stored = msgspec.msgpack.decode(content, type=_Stored)
        if (stored.items, stored.users) != (features, USER_FEATURES):
            return None
        weights = load(stored.weights)
        reranker = Reranker(torch.zeros(len(features)), len(USER_FEATURES), len(weights["second.bias"]))
        reranker.load_state_dict(weights)
    except (msgspec.DecodeError, SafetensorError, KeyError, RuntimeError) as error:
        raise ArtifactError(f"{RERANKER_FILE} is unreadable: {error}") from error
    if not reranker.finite:
        raise ArtifactError(f"{RERANKER_FILE} has NaN or infinite weights")
    return reranker.eval().requires_grad_(False)
