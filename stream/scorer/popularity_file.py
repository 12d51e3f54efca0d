"""The file that keeps popularity over a restart; each version is written aside and renamed."""

from __future__ import annotations

import logging
from pathlib import Path

from state.store import Store, StoreError

__all__ = ["PopularityFile"]

log = logging.getLogger(__name__)

_OLD_IDENTITY, _OLD_KEY = {"content": "last lists"}, b"mpopularity"


class PopularityFile:
    """The file `popularity` in the scorer's folder. The first release kept popularity in the store of all last lists,
    `lists`: it is taken over from there, and that store, which is not used any more, is removed."""

    def __init__(self, folder: Path) -> None:
        self._path, self._old_store = folder / "popularity", folder / "lists"

    def load(self) -> bytes | None:
        """The saved popularity; None when there is none, or none that can be read."""
        if self._path.exists():
            return self._path.read_bytes()
        return self._take_over() if self._old_store.exists() else None

    def _take_over(self) -> bytes | None:
        try:
            store = Store(self._old_store, _OLD_IDENTITY)
        except StoreError as error:
            log.warning("popularity starts from nothing: %s", error)
            return None
        (saved,) = store.get_many([_OLD_KEY])
        store.close()
        if saved is not None:
            self.save(saved)
        Store.destroy(self._old_store)
        return saved

    def save(self, popularity: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(".partial")
        aside.write_bytes(popularity)
        aside.replace(self._path)
