"""Restores a backup into folders without such files and topics without models.

    1. every file of the backup is checked; a file that is in the way is an error before anything is written
    2. artifacts are written under temporary names, renamed, and read back
    3. the closed loop's decisions, the popularity and the counts are written
    4. the slots are written in one transaction: from now on scorers serve these models, all of which exist

A restore that was killed between these steps is finished by running it again: files that are the same stay.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import fsspec
import msgspec

from model.artifact import read_extra_file, read_manifest
from model.errors import ArtifactError
from stream.clients.connection import KafkaConnection
from stream.leaving.backup import Contents, file_sha256, read_contents
from stream.leaving.folder import LeavingError
from stream.registry.artifacts import Artifacts
from stream.registry.slots import SlotWriter
from stream.wire.records import Announcement
from stream.wire.topics import TopicPlan, ensure_topics

__all__ = ["CRASH_POINTS", "Restored", "restore"]

# Points at which a killed restore must leave everything usable; a test kills it at each of them.
CRASH_POINTS = ("artifacts", "files", "sent")
_CHUNK = 1024 * 1024


class Restored(NamedTuple):
    versions: Mapping[str, str]  # by slot
    files: Sequence[Path]  # decisions, popularity and counts


def restore(
    connection: KafkaConnection,
    plan: TopicPlan,
    folder: Path,
    artifacts_url: str,
    decisions: Path,
    scorer_folders: Sequence[Path],
    crash: Callable[[str], None] = lambda point: None,
) -> Restored:
    """Restore the backup in `folder`. Nothing is overwritten. Raises `LeavingError`."""
    contents = read_contents(folder)
    slots = msgspec.json.decode((folder / "slots.json").read_bytes(), type=dict[str, Announcement])
    files = _targets(folder, contents, decisions, scorer_folders)
    for source, target in files.items():
        if target.exists() and file_sha256(target) != file_sha256(source):
            raise LeavingError(f"{target} is there already and is another: nothing is overwritten, remove it first")
    ensure_topics(connection, plan)
    # Opened before anything is written, so that a trainer's unfinished moves end first.
    writer = SlotWriter(connection, plan.models)
    try:
        artifacts = Artifacts(artifacts_url, plan.prefix)
        restored = {slot: _at(announcement, artifacts, plan) for slot, announcement in slots.items()}
        if writer.current and writer.current != restored:
            held = ", ".join(f"{slot}: {announcement.version}" for slot, announcement in writer.current.items())
            raise LeavingError(f"{plan.models} has models in service ({held}): restore into topics without any")
        for announcement in restored.values():
            _store(folder / "artifacts" / announcement.version, announcement)
        crash("artifacts")
        for source, target in files.items():
            _place(source, target)
        crash("files")
        if writer.current != restored:
            writer.move(restored, lambda: crash("sent"))
    finally:
        writer.close()
    return Restored(contents.versions, list(files.values()))


def _targets(folder: Path, contents: Contents, decisions: Path, scorer_folders: Sequence[Path]) -> dict[Path, Path]:
    if contents.popularity > len(scorer_folders):
        raise LeavingError(
            f"the backup has popularity of {contents.popularity} scorers: name a folder for each by --scorer-dir"
        )
    targets = {folder / "popularity" / str(n): scorer_folders[n] / "popularity" for n in range(contents.popularity)}
    for number in range(contents.popularity):
        if f"counts/{number}" in contents.files:
            targets[folder / "counts" / str(number)] = scorer_folders[number] / "counts"
    if "decisions.json" in contents.files:
        targets[folder / "decisions.json"] = decisions
    return targets


def _at(announcement: Announcement, artifacts: Artifacts, plan: TopicPlan) -> Announcement:
    return msgspec.structs.replace(announcement, address=f"{artifacts.url}/{plan.prefix}{announcement.version}")


def _store(source: Path, announcement: Announcement) -> None:
    """Copy an artifact to the announced address, and read it back. Raises `LeavingError`."""
    filesystem, path = fsspec.core.url_to_fs(announcement.address)
    try:
        if not filesystem.exists(path):
            temporary = f"{path}.{uuid.uuid4().hex[:8]}.partial"
            filesystem.makedirs(temporary, exist_ok=True)
            for file in sorted(source.iterdir()):
                with file.open("rb") as content, filesystem.open(posixpath.join(temporary, file.name), "wb") as target:
                    shutil.copyfileobj(content, target, _CHUNK)
            filesystem.mv(temporary, path, recursive=True)
        manifest = read_manifest(announcement.address, announcement.sha256)
        for name in manifest.sha256:
            read_extra_file(announcement.address, name, manifest)
    except (ArtifactError, OSError) as error:
        raise LeavingError(
            f"{announcement.address}: {error}. Nothing is overwritten: remove what is there, or name another place by "
            f"--artifacts"
        ) from None


def _place(source: Path, target: Path) -> None:
    """Copy a file under a temporary name and rename it, unless `target` exists already."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(target.name + ".restored")
    with source.open("rb") as content, aside.open("wb") as file:
        shutil.copyfileobj(content, file, _CHUNK)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(target)
