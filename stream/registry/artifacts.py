"""The artifacts of a trainer: one fsspec folder with one artifact per version; old ones are removed."""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import fsspec
import msgspec
import torch

from model.artifact import Manifest, delete_artifact, load_learner, read_extra_file, read_manifest, save_artifact
from model.errors import ArtifactError
from model.learner import Learner
from model.rerank.counts import CountsConfig
from model.rerank.features import feature_names
from model.rerank.reranker import Reranker
from model.rerank.stored import RERANKER_FILE, write_reranker
from stream.registry.reference import Reference
from stream.wire.records import Announcement

__all__ = ["Artifacts", "Provenance", "Root", "load_reference", "next_version", "read_provenance"]

log = logging.getLogger(__name__)

_VERSION = re.compile(r"v(\d+)-(\d{8}T\d{6})")


def next_version(known: Collection[str], now_ms: int) -> str:
    """A version with the number after the highest of the `known` ones, and the time, which makes it unique.

    >>> next_version(["v2-20260101T000000", "v9-20260102T000000"], 1_800_000_000_000)
    'v10-20270115T080000'
    """
    numbers = [int(match[1]) for version in known if (match := _VERSION.fullmatch(version))]
    return f"v{max(numbers, default=0) + 1}-{datetime.fromtimestamp(now_ms / 1000, UTC):%Y%m%dT%H%M%S}"


class Root(NamedTuple):
    """The model trained from scratch that a model descends from, or is itself. A user who was erased from `histories`
    before these offsets was seen neither by the root nor by its descendants, which read later records."""

    version: str
    topic_id: str
    next_offsets: Mapping[int, int]


class Provenance(NamedTuple):
    """The records of `histories` that a model learnt: all before these offsets of the topic with this id, by partition,
    except those in `left`, from the first offset to before the second."""

    topic_id: str
    next_offsets: Mapping[int, int]
    left: Mapping[int, tuple[int, int]] = {}
    root: Root | None = None  # None: not known (first release), or the model to save is itself the root


_REFERENCE = "reference.msgpack"


def load_reference(announcement: Announcement) -> Reference | None:
    """The reference that was stored with a model; None when there is none. Raises `ArtifactError`."""
    manifest = read_manifest(announcement.address, announcement.sha256)
    content = read_extra_file(announcement.address, _REFERENCE, manifest)
    try:
        return None if content is None else Reference.decode(content, manifest.items)
    except (msgspec.DecodeError, ValueError) as error:
        raise ArtifactError(f"{_REFERENCE} at {announcement.address} is unreadable: {error}") from error


def read_provenance(announcement: Announcement) -> Provenance:
    """The provenance of a model, without loading the model. Raises `ArtifactError`."""
    return _provenance(read_manifest(announcement.address, announcement.sha256))


def _provenance(manifest: Manifest) -> Provenance:
    origin = manifest.origin
    offsets: dict[int, int] = {}
    root_offsets: dict[int, int] = {}
    left: dict[int, tuple[int, int]] = {}
    for name, value in origin.items():
        kind, _, number = name.partition("/")
        if kind == "next_offset":
            offsets[int(number)] = int(value)
        elif kind == "root_offset":
            root_offsets[int(number)] = int(value)
        elif kind == "left":
            first, _, until = value.partition("-")
            left[int(number)] = int(first), int(until)
    topic_id = origin.get("topic_id", "")
    root = None
    if "root" in origin:
        root = Root(origin["root"], origin.get("root_topic_id", ""), root_offsets)
    elif not manifest.parent and offsets:
        root = Root(manifest.version, topic_id, offsets)
    return Provenance(topic_id, offsets, left, root)


class Artifacts:
    """The artifacts in a folder. Several Freshets with different `prefix` may share the folder."""

    def __init__(self, url: str, prefix: str = "") -> None:
        # Absolute, because it is announced to processes with another working directory.
        self.url = url.rstrip("/") if "://" in url else str(Path(url).absolute())
        self._prefix = prefix

    def save(
        self,
        learner: Learner,
        manifest: Manifest,
        provenance: Provenance,
        reference: Reference,
        reranker: Reranker | None = None,
    ) -> Announcement:
        """Store one version and describe it for the live slot. Raises `ArtifactError`."""
        address = f"{self.url}/{self._prefix}{manifest.version}"
        origin = {"topic_id": provenance.topic_id}
        origin |= {f"next_offset/{number}": str(offset) for number, offset in provenance.next_offsets.items()}
        origin |= {f"left/{number}": f"{first}-{until}" for number, (first, until) in provenance.left.items()}
        if provenance.root is not None:
            root = provenance.root
            origin |= {"root": root.version, "root_topic_id": root.topic_id}
            origin |= {f"root_offset/{number}": str(offset) for number, offset in root.next_offsets.items()}
        manifest = msgspec.structs.replace(manifest, origin=origin)
        files = {_REFERENCE: reference.encode(learner.items.ids)}
        if reranker is not None:
            files[RERANKER_FILE] = write_reranker(reranker, feature_names(CountsConfig()))
        sha256 = save_artifact(address, learner, manifest, files)
        return Announcement(
            slot="live",
            version=manifest.version,
            address=address,
            sha256=sha256,
            parent=manifest.parent,
            created=manifest.created,
            data_until=manifest.data_until,
            items=len(learner.items),
            metrics=manifest.metrics,
        )

    def load(self, announcement: Announcement, device: torch.device) -> tuple[Learner, Provenance]:
        """The learner and the provenance that `save` stored. Raises `ArtifactError` when the files are not complete, or
        differ from the announced ones."""
        learner, manifest = load_learner(announcement.address, announcement.sha256, device)
        return learner, _provenance(manifest)

    def retain(self, keep: int, needed: Collection[str]) -> None:
        """Remove all versions except the newest `keep` and those at the addresses `needed`; also remove the remains of
        unfinished saves.

        Must not be called while `save` runs. A folder that cannot be listed or cleaned is only logged.
        """
        try:
            filesystem, path = fsspec.core.url_to_fs(self.url)
            names = [posixpath.basename(entry.rstrip("/")) for entry in filesystem.ls(path, detail=False)]
            own = re.compile(re.escape(self._prefix) + _VERSION.pattern + r"(\.\w+\.partial)?")
            matches = sorted((m for name in names if (m := own.fullmatch(name))), key=lambda m: m[2], reverse=True)
            whole = [match[0] for match in matches if not match[3]]
            addresses = {posixpath.basename(address) for address in needed}
            for name in [m[0] for m in matches if m[3]] + [n for n in whole[keep:] if n not in addresses]:
                delete_artifact(f"{self.url}/{name}")
                log.info("removed the artifact %s", name)
        except OSError as error:
            log.warning("old artifacts in %s stay: %s", self.url, error)
