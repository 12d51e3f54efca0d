"""A folder that is filled completely or not at all.

Everything is written below `FOLDER/.partial` and renamed at the end, the table of contents last: a folder with that
file is complete, whenever a process or the machine may have stopped.

    killed while writing    only `.partial` is there
    killed while renaming   the table of contents is missing
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from state.store import StoreError

__all__ = ["LeavingError", "filled_folder"]

_PARTIAL = ".partial"


class LeavingError(RuntimeError):
    """The data cannot be written or restored; the message says what to do."""


@contextmanager
def filled_folder(folder: Path, contents: str) -> Iterator[Path]:
    """A context with a folder to write to. Its entries are moved to `folder` when the block ends without an error, the
    one named `contents` last. Raises `LeavingError` when `folder` is not empty or cannot be written."""
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        found = sorted(path.name for path in folder.iterdir())
        if _PARTIAL in found:
            raise LeavingError(
                f"{folder} holds what another run is writing, or left unfinished: name another folder, or remove "
                f"{folder / _PARTIAL}"
            )
        if found:
            raise LeavingError(f"{folder} is not empty, it holds {found[0]}: name a new folder")
        partial = folder / _PARTIAL
        partial.mkdir()
    except OSError as error:
        raise LeavingError(f"{folder}: {error.strerror}; name another folder, or make it writable") from None
    try:
        yield partial
        for path in sorted(partial.rglob("*")):
            _sync(path)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == contents):
            path.rename(folder / path.name)
            _sync(folder)
        partial.rmdir()
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()
        if isinstance(error, OSError | StoreError):  # a full disk, above all
            raise LeavingError(f"{folder} cannot be filled: {error}") from error
        raise


def _sync(path: Path) -> None:
    """Sync a file or a folder to the disk, so that a loss of power does not lose it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
