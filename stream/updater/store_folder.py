"""The stores of partitions on this disk, and how long they stay after their partition moved away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from state.store import Store, StoreLocked

__all__ = ["StoreFolder"]

log = logging.getLogger(__name__)

_SETTLED_SECONDS = 10.0, 60.0  # least and longest wait until a worker that has just started has its partitions


class StoreFolder:
    """`folder` holds one store per partition, named by its number.

    The store of a partition that moved away stays for `keep_seconds`. If the partition returns in that time, as in a
    rolling restart, only the rest of the changelog is read and not all of it. The store must not stay longer, because
    users who are forgotten meanwhile are not erased in it. Removing a store is safe at any time: the changelog has all
    of its content. A store that an earlier process left is treated in the same way, by the time of its last change.

    `clock` gives seconds since 1970, as files' times are.
    """

    def __init__(self, folder: Path, keep_seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._keep, self._clock = folder, keep_seconds, clock
        least, longest = _SETTLED_SECONDS
        settled = clock() + min(max(keep_seconds, least), longest)
        found = folder.iterdir() if folder.is_dir() else ()
        stores = [path for path in found if path.name.isdigit() and path.is_dir()]
        self._remove_at = {int(path.name): max(_changed(path) + keep_seconds, settled) for path in stores}

    def take(self, number: int) -> Path:
        """Where the store of a partition that this worker owns from now on is."""
        self._remove_at.pop(number, None)
        return self._folder / str(number)

    def leave(self, number: int) -> None:
        """The partition moved away, and its store is closed."""
        self._remove_at[number] = self._clock() + self._keep

    def sweep(self) -> None:
        """Remove the stores whose time has come."""
        for number, time_s in list(self._remove_at.items()):
            if self._clock() < time_s:
                continue
            path = self._folder / str(number)
            del self._remove_at[number]
            try:
                Store.destroy(path)
            except StoreLocked as error:
                log.error("%s stays: %s. Every worker needs a state folder of its own", path, error)
            except OSError as error:
                log.error("%s cannot be removed, and holds users who may be forgotten by now: %s", path, error)
            else:
                log.info("%s removed: the partition is another worker's", path)


def _changed(path: Path) -> float:
    return max(entry.stat().st_mtime for entry in (path, *path.iterdir()))
