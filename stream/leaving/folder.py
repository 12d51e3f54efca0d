"""A folder that is filled as a whole or not at all.

Everything is written below `FOLDER/.partial` and renamed at the end, the table of contents last: whoever finds that
file finds a complete folder, whatever died on the way.

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
    """What was asked for cannot be taken out or brought back; the message says what to do."""


@contextmanager
def filled_folder(folder: Path, contents: str) -> Iterator[Path]:
    """A folder to write to, whose entries are in `folder` when the block was left without an error; `contents` is the
    name of the one that comes last. Raises `LeavingError` when `folder` is not empty."""
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
    """On the disk, to survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
