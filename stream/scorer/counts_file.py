"""The file that keeps the counts of the second stage over a restart; each version is written aside and renamed.

The file is written once a minute and at the end. A scorer that is killed loses what it counted since the last write:
about a minute of sums that decay over days.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from model.rerank.counts import CountsConfig, StreamCounts

__all__ = ["CountsFile"]

log = logging.getLogger(__name__)

_EVERY_SECONDS = 60.0


class _Stored(msgspec.Struct, frozen=True):
    config: dict[str, object]
    ids: list[str]
    arrays: bytes  # safetensors


class CountsFile:
    """The file `counts` in the scorer's folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "counts"
        self._due = time.monotonic() + _EVERY_SECONDS
        self._writer: threading.Thread | None = None

    def load(self, config: CountsConfig) -> StreamCounts | None:
        """The saved counts. None when there is no file, or (which is logged) none that fits: counts then begin anew."""
        try:
            stored = msgspec.msgpack.decode(self._path.read_bytes(), type=_Stored)
            if msgspec.msgpack.encode(stored.config) != msgspec.msgpack.encode(asdict(config)):
                log.warning("%s was counted with other half-lives; counts begin anew", self._path)
                return None
            return StreamCounts.restore(config, stored.ids, load(stored.arrays))
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, SafetensorError, KeyError, ValueError) as error:
            log.warning("%s cannot be read (%s); counts begin anew", self._path, error)
            return None

    def save(self, counts: StreamCounts, now: bool = False) -> None:
        """Save a copy of the counts, at most once a minute and in a thread. With `now`, save at once and wait."""
        writing = self._writer is not None and self._writer.is_alive()
        if not now and (writing or time.monotonic() < self._due):
            return
        self._due = time.monotonic() + _EVERY_SECONDS
        arrays = {name: values.copy(order="C") for name, values in counts.state().items()}
        if self._writer is not None:
            self._writer.join()
        given = asdict(counts.config), list(counts.ids), arrays
        self._writer = threading.Thread(target=self._write, args=given, name="counts", daemon=True)
        self._writer.start()
        if now:
            self._writer.join()

    def _write(self, config: dict[str, object], ids: list[str], arrays: dict[str, np.ndarray]) -> None:
        stored = _Stored(config, ids, save(arrays))
        aside = self._path.with_suffix(".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(msgspec.msgpack.encode(stored))
            aside.replace(self._path)
        except OSError as error:  # lists do not need the file; the next one is tried in a minute
            log.warning("the counts of the second stage are not saved: %s", error)
