"""A model on disk, or in any store that fsspec reaches: safetensors and a JSON manifest, never pickle.

    <address>/serving.safetensors    what ranking needs: averaged weights, item-item neighbours
    <address>/learner.safetensors    what learning needs on top: weights, moments, loss history, random state
    <address>/manifest.json          format, version, config, item index, facts, and the sha256 of the other files
    <address>/<any other name>       extra files that its publisher wants to keep with it

The files are written to a folder with a temporary name, which is renamed once it is complete. The manifest has the
hashes of all files, so the manifest's own sha256 in an announcement verifies the whole artifact.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import uuid
from collections.abc import Mapping
from typing import Any

import fsspec
import msgspec
import torch
from fsspec.implementations.local import LocalFileSystem
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.config import ModelConfig
from model.errors import ArtifactError
from model.items import ItemIndex
from model.learner import Learner
from model.network import Network, build_network
from model.recommend import Recommender
from model.rerank.counts import CountsConfig
from model.rerank.features import feature_names
from model.rerank.stored import RERANKER_FILE, read_reranker

__all__ = [
    "Manifest",
    "delete_artifact",
    "load_learner",
    "load_recommender",
    "read_extra_file",
    "read_manifest",
    "save_artifact",
]

FORMAT = 1
_SERVING, _LEARNER, _MANIFEST = "serving.safetensors", "learner.safetensors", "manifest.json"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    parent: str = ""  # the version it was fine-tuned from
    created: int  # milliseconds since 1970 UTC
    data_until: int  # event time of the newest interaction it was fitted on, milliseconds
    metrics: dict[str, float] = {}
    origin: dict[str, str] = {}  # where its data came from, in its publisher's terms
    # Written by `save_artifact`:
    format: int = FORMAT
    config: ModelConfig | None = None
    items: tuple[str, ...] = ()
    updates: int = 0
    passes: int = 0
    sha256: dict[str, str] = {}


def save_artifact(
    address: str, learner: Learner, manifest: Manifest, extra_files: Mapping[str, bytes] | None = None
) -> str:
    """Store `learner` at the fsspec URL `address`, with `extra_files` by name; returns the manifest's sha256.

    Raises `ArtifactError`.
    """
    serving = {f"average.{name}": value for name, value in learner.served.state_dict().items()}
    if learner.neighbours is not None and learner.neighbour_weights is not None:
        serving |= {"neighbours": learner.neighbours, "neighbour_weights": learner.neighbour_weights}
    learning = {f"denoiser.{name}": value for name, value in learner.denoiser.state_dict().items()}
    learning |= {f"steps.{name}": value for name, value in learner.step_sampler.state_dict().items()}
    learning["generator"] = learner.generator.get_state()
    for name, parameter in learner.denoiser.named_parameters():
        for moment, value in learner.optimizer.state[parameter].items():
            learning[f"optimizer.{name}.{moment}"] = value
    files = {**(extra_files or {}), _SERVING: _pack(serving), _LEARNER: _pack(learning)}
    complete = msgspec.structs.replace(
        manifest,
        format=FORMAT,
        config=learner.config,
        items=learner.items.ids,
        updates=learner.updates,
        passes=learner.passes,
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    )
    files[_MANIFEST] = msgspec.json.encode(complete)
    filesystem, path = fsspec.core.url_to_fs(address)
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    try:
        filesystem.makedirs(temporary, exist_ok=True)
        for name, content in files.items():
            with filesystem.open(posixpath.join(temporary, name), "wb") as file:
                file.write(content)
        # On a disk, sync the content, the names and then the address: they must not be lost with power, because the
        # announcement that follows is not lost either. Other stores have the files when `close` returns.
        local = isinstance(filesystem, LocalFileSystem)
        for written in [*(posixpath.join(temporary, name) for name in files), temporary] if local else ():
            _sync(written)
        filesystem.mv(temporary, path, recursive=True)
        if local:
            _sync(posixpath.dirname(path))
    except OSError as error:
        raise ArtifactError(f"cannot store model {manifest.version} at {address}: {error}") from error
    return hashlib.sha256(files[_MANIFEST]).hexdigest()


def _sync(path: str) -> None:
    """Sync a file's content, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pack(tensors: dict[str, Tensor]) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _read(address: str, name: str) -> bytes:
    filesystem, path = fsspec.core.url_to_fs(address)
    try:
        with filesystem.open(posixpath.join(path, name), "rb") as file:
            return file.read()
    except OSError as error:
        raise ArtifactError(f"cannot read {name} of the model at {address}: {error}") from error


def read_manifest(address: str, sha256: str | None = None) -> Manifest:
    """The manifest of a stored model. Raises `ArtifactError` when it is missing, altered, or of a format that this
    Freshet does not read."""
    content = _read(address, _MANIFEST)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ArtifactError(f"the manifest at {address} is not the announced one: its sha256 differs")
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise ArtifactError(f"the manifest at {address} is unreadable: {error}") from error
    if manifest.format != FORMAT:
        raise ArtifactError(f"{address} has format {manifest.format}, this Freshet reads {FORMAT}: upgrade it")
    return manifest


def read_extra_file(address: str, name: str, manifest: Manifest) -> bytes | None:
    """A file that was stored with the model, None when there was none. Raises `ArtifactError`."""
    if name not in manifest.sha256:
        return None
    content = _read(address, name)
    if hashlib.sha256(content).hexdigest() != manifest.sha256[name]:
        raise ArtifactError(f"{name} at {address} was altered: its sha256 is not the manifest's")
    return content


def _tensors(address: str, name: str, manifest: Manifest) -> dict[str, Tensor]:
    content = read_extra_file(address, name, manifest)
    if content is None:
        raise ArtifactError(f"the manifest at {address} does not name {name}")
    try:
        return load(content)
    except SafetensorError as error:
        raise ArtifactError(f"{name} at {address} is unreadable: {error}") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _config(manifest: Manifest, address: str) -> ModelConfig:
    if manifest.config is None:
        raise ArtifactError(f"the manifest at {address} has no config")
    return manifest.config


def _network(config: ModelConfig, items: int, state: dict[str, Tensor], device: torch.device) -> Network:
    # On "meta" a network has shapes but no weights, which is enough: the weights come from the file.
    with torch.device("cpu" if config.latent else "meta"):
        network = build_network(config, items)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ArtifactError(f"the weights do not fit the manifest's config: {error}") from error
    return network.to(device)


def load_recommender(address: str, sha256: str | None, device: torch.device) -> Recommender:
    """The serving part of a stored model. Raises `ArtifactError`, and `ModelError` for NaN or infinite weights."""
    manifest = read_manifest(address, sha256)
    config = _config(manifest, address)
    tensors = _tensors(address, _SERVING, manifest)
    network = _network(config, len(manifest.items), _part(tensors, "average."), device)
    index = ItemIndex(manifest.items)
    neighbours, weights = tensors.get("neighbours"), tensors.get("neighbour_weights")
    content = read_extra_file(address, RERANKER_FILE, manifest)
    reranker = None if content is None else read_reranker(content, feature_names(CountsConfig()))
    return Recommender(manifest.version, index, config, network, neighbours, weights, reranker=reranker)


def load_learner(address: str, sha256: str | None, device: torch.device) -> tuple[Learner, Manifest]:
    """A learner that continues where the stored one stopped; on a CPU with identical results. Raises
    `ArtifactError`."""
    manifest = read_manifest(address, sha256)
    config = _config(manifest, address)
    serving, learning = _tensors(address, _SERVING, manifest), _tensors(address, _LEARNER, manifest)
    learner = Learner(config, ItemIndex(manifest.items), torch.Generator(device), device)
    learner.denoiser.load_state_dict(_part(learning, "denoiser."))
    learner.average.load_state_dict(_part(serving, "average."))
    learner.step_sampler.load_state_dict(_part(learning, "steps."))
    for name, parameter in learner.denoiser.named_parameters():
        moments: dict[str, Any] = _part(learning, f"optimizer.{name}.")
        if moments:
            learner.optimizer.state[parameter] = {key: value.to(device) for key, value in moments.items()}
    learner.generator.set_state(learning["generator"])
    learner.updates, learner.passes = manifest.updates, manifest.passes
    if "neighbours" in serving:
        learner.neighbours, learner.neighbour_weights = serving["neighbours"], serving["neighbour_weights"]
    return learner, manifest


def delete_artifact(address: str) -> None:
    """Remove a stored model, if it exists."""
    filesystem, path = fsspec.core.url_to_fs(address)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)
