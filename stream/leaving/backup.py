"""A backup of the state outside of Kafka: models with their slots, the closed loop's decisions, popularity, settings.

    artifacts/<version>/...    every model that is in a slot
    slots.json                 what each slot holds
    decisions.json             the decisions of the closed loop, from the trainer's folder
    popularity/0 ...           one per folder of a scorer
    counts/0 ...               the counts of that scorer's second stage, if there are any
    settings.toml              the effective settings, without secrets
    backup.json                sha256 and size of every file; it is written last

The pipeline may run during a backup. Artifacts never change, and those in a slot are not removed. The slots are read
again after the decisions have been copied, and the copies are made again if a slot changed. The decisions therefore fit
the slots as after a crash of the trainer at that moment, a state from which the trainer recovers by itself
(`stream.trainer.lifecycle`).
"""

from __future__ import annotations

import hashlib
import logging
import posixpath
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import fsspec
import msgspec

from model.artifact import read_manifest
from model.errors import ArtifactError
from stream.clients.connection import KafkaConnection
from stream.leaving.folder import LeavingError, filled_folder
from stream.registry.slots import read_slots
from stream.wire.records import Announcement
from stream.wire.topics import TopicPlan

__all__ = ["CONTENTS", "MANIFEST", "Contents", "StoredFile", "back_up", "file_sha256", "read_contents"]

log = logging.getLogger(__name__)

CONTENTS, MANIFEST = "backup.json", "manifest.json"
_TRIES = 5
_CHUNK = 1024 * 1024


class StoredFile(msgspec.Struct, frozen=True):
    sha256: str
    size: int


class Contents(msgspec.Struct):
    """`backup.json`."""

    freshet: str
    created: int  # milliseconds since 1970 UTC
    prefix: str  # of the topics
    versions: dict[str, str]  # by slot
    popularity: int  # files
    files: dict[str, StoredFile]  # by path
    format: int = 1


def back_up(
    connection: KafkaConnection,
    plan: TopicPlan,
    folder: Path,
    decisions: Path,
    scorer_folders: Sequence[Path],
    settings: str,
    during: Callable[[], None] = lambda: None,
) -> Contents:
    """Write a backup to an empty `folder`. `decisions` and a scorer's popularity may be missing; they are then left
    out. `during` is called before the slots are read again. Raises `LeavingError`."""
    with filled_folder(folder, CONTENTS) as partial:
        for _ in range(_TRIES):
            slots = read_slots(connection, plan.models)
            for announcement in slots.values():
                _fetch(announcement, partial / "artifacts" / announcement.version)
            if decisions.exists():
                shutil.copyfile(decisions, partial / "decisions.json")
            during()
            if read_slots(connection, plan.models) == slots:
                break
            log.info("a model moved meanwhile, beginning again")
            shutil.rmtree(partial / "artifacts", ignore_errors=True)
            (partial / "decisions.json").unlink(missing_ok=True)
        else:
            raise LeavingError("models moved all the while: try again when no canary is being decided")
        (partial / "slots.json").write_bytes(msgspec.json.format(msgspec.json.encode(slots), indent=2))
        (partial / "settings.toml").write_text(settings)
        kept = _popularity(scorer_folders, partial)
        contents = Contents(
            freshet=version("freshet"),
            created=int(time.time() * 1000),
            prefix=plan.prefix,
            versions={slot: announcement.version for slot, announcement in slots.items()},
            popularity=kept,
            files={
                path.relative_to(partial).as_posix(): StoredFile(file_sha256(path), path.stat().st_size)
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            },
        )
        (partial / CONTENTS).write_bytes(msgspec.json.format(msgspec.json.encode(contents), indent=2))
    return contents


def _popularity(scorer_folders: Sequence[Path], partial: Path) -> int:
    kept = 0
    for folder in scorer_folders:
        source = folder / "popularity"
        if not source.exists():
            log.warning("%s is not there: no popularity of this scorer is kept", source)
            continue
        (partial / "popularity").mkdir(exist_ok=True)
        # The scorer replaces the file and never changes it, so the copy is consistent.
        shutil.copyfile(source, partial / "popularity" / str(kept))
        counts = folder / "counts"
        if counts.exists():
            (partial / "counts").mkdir(exist_ok=True)
            shutil.copyfile(counts, partial / "counts" / str(kept))
        kept += 1
    return kept


def _fetch(announcement: Announcement, folder: Path) -> None:
    """Copy an artifact, and check that it is the announced one."""
    if folder.exists():  # the model is in two slots
        return
    try:
        manifest = read_manifest(announcement.address, announcement.sha256)
        folder.mkdir(parents=True)
        filesystem, source = fsspec.core.url_to_fs(announcement.address)
        for name in (*manifest.sha256, MANIFEST):
            with filesystem.open(posixpath.join(source, name), "rb") as file, (folder / name).open("wb") as target:
                shutil.copyfileobj(file, target, _CHUNK)
            expected = manifest.sha256.get(name, announcement.sha256)
            if file_sha256(folder / name) != expected:
                raise LeavingError(f"{name} at {announcement.address} was altered: its sha256 is not the announced one")
    except (ArtifactError, OSError) as error:
        raise LeavingError(
            f"the model {announcement.version} in slot {announcement.slot} cannot be read: {error}. Run this where the "
            f"artifacts are; `freshet model rollback` takes a model that is lost out of service"
        ) from None


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_contents(folder: Path) -> Contents:
    """The contents of a backup, after a check of every file. Raises `LeavingError`."""
    try:
        contents = msgspec.json.decode((folder / CONTENTS).read_bytes(), type=Contents)
    except OSError as error:
        raise LeavingError(f"{folder} holds no complete backup: {CONTENTS}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LeavingError(f"{folder / CONTENTS} is unreadable: {error}") from None
    if contents.format != 1:
        raise LeavingError(f"{folder} has format {contents.format}, this Freshet reads 1: upgrade it")
    for name, stored in contents.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise LeavingError(f"{folder / CONTENTS} names {name}, which is outside of the backup")
        try:
            whole = file_sha256(path) == stored.sha256
        except OSError as error:
            raise LeavingError(f"the backup is not whole: {path}: {error.strerror}") from None
        if not whole:
            raise LeavingError(f"the backup is not whole: {path} was altered, its sha256 is not that of {CONTENTS}")
    return contents
