"""The scorer's journal: the refreshes that each batch took, so that the counts behind a list can be counted again.

Popularity and the counts of the second stage are a function of the batches that a scorer took since it began, in their
order. The journal names those batches by offsets of `refreshes`; it holds no data of users. It lies in the scorer's
folder, in segments that each begin with a copy of all counts (the *anchor*), and is kept about as long as `refreshes`:

    <life>-<segment>.tape      frames: 4 bytes length, then MessagePack; a `SegmentStart` first, then every `Batch`
    <life>-<segment>.anchor    blake2b of the rest, then MessagePack; none where nothing was counted yet

A life is one run of a scorer process. A batch is written before any of its lists is made, so a list that was published
has its batch here even if the process is killed at that moment; only a machine that loses power loses the last seconds.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from model.recommend import Recommender
from model.rerank.counts import CountsConfig, StreamCounts
from state.popularity import Popularity
from stream.scorer.models import Models
from stream.wire.made import Made

__all__ = ["Batch", "Journal", "JournalError", "NoJournal", "ServedBy", "read_anchor", "read_batches", "read_start"]

log = logging.getLogger(__name__)

_SEGMENT_SECONDS = 2 * 3600.0  # to make a list again, half of this is counted again on average
_DIGEST = 16
_NONE = "-"


class ServedBy(msgspec.Struct, array_like=True, frozen=True):
    """A model, as it was announced."""

    version: str
    address: str
    sha256: str


class SegmentStart(msgspec.Struct, array_like=True, frozen=True):
    life: str
    segment: int
    begun_ms: int
    anchored: bool  # False: nothing had been counted yet
    half_life_ms: int  # of popularity
    counts: bytes  # configuration of the counts, as JSON


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """The refreshes that a batch took, in order, and the items and models that its lists were made with."""

    number: int
    clock_ms: int
    items: int  # the offset up to which the topic `items` had been read
    taken: tuple[tuple[int, int, int], ...]  # partition, first offset, and how many
    retaken: bool = False  # popularity was saved after the batch before, which chooses its top items again
    stale: tuple[int, ...] = ()  # places of the requests that were older than their user's list
    added: tuple[str, ...] = ()  # items that got a column of the counts because a new model knows them
    models: tuple[ServedBy | None, ServedBy | None, ServedBy | None] | None = None  # live, previous, canary, if changed
    canary_share: float = 0.0

    def positions(self) -> Iterator[tuple[int, int]]:
        """(partition, offset) of every refresh, in order."""
        for partition, first, count in self.taken:
            for offset in range(first, first + count):
                yield partition, offset


class JournalError(RuntimeError):
    """A journal that does not exist, or is damaged."""


class Journal:
    """Written by the scoring thread only. Lists do not depend on the journal: an error of the disk is logged, and ends
    the journal but not the scorer."""

    def __init__(
        self,
        folder: Path,
        settings: int,
        keep_hours: float,
        half_life_ms: int,
        clock: Callable[[], float] = time.time,
        segment_seconds: float = _SEGMENT_SECONDS,
    ) -> None:
        self._folder, self._settings, self._keep_seconds = folder, settings, keep_hours * 3600
        self._half_life_ms, self._clock, self._segment_seconds = half_life_ms, clock, segment_seconds
        self.life = os.urandom(5).hex() if keep_hours else _NONE
        self._segment = self._batch = 0
        self.retaken = False  # popularity was saved since the last batch
        self._ends = 0.0  # when the next segment begins, by the clock
        self._models: Models | None = None  # the models last written to the segment
        self._tape: BinaryIO | None = None
        self._writer: threading.Thread | None = None
        self._made: dict[str, bytes] = {}  # by version of the model: the header's part that its lists of a batch share

    def turn(self, popularity: Popularity, counts: StreamCounts) -> None:
        """Call this before a batch is counted: it begins a new segment when it is time."""
        if self.life == _NONE or self._clock() < self._ends:
            return
        self._ends = self._clock() + self._segment_seconds
        try:
            self._begin(popularity, counts)
        except OSError as error:
            self._give_up(error)

    def _begin(self, popularity: Popularity, counts: StreamCounts) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._tape is not None:
            self._tape.close()
        self._drop_old()
        name = f"{self.life}-{self._segment:05}"
        anchored = bool(len(popularity) or len(counts))
        start = SegmentStart(
            self.life, self._segment, int(self._clock() * 1000), anchored, self._half_life_ms, _config(counts.config)
        )
        self._tape = (self._folder / f"{name}.tape").open("xb", buffering=0)
        self._tape.write(_frame(start))
        self._segment, self._models = self._segment + 1, None
        if anchored:
            arrays = {key: values.copy(order="C") for key, values in counts.state().items()}
            given = self._folder / f"{name}.anchor", popularity.state(), list(counts.ids), arrays
            if self._writer is not None:
                self._writer.join()
            self._writer = threading.Thread(target=_write_anchor, args=given, name="journal", daemon=True)
            self._writer.start()

    def _drop_old(self) -> None:
        oldest = self._clock() - self._keep_seconds - self._segment_seconds
        for path in self._folder.glob("*.tape"):
            if path.stat().st_mtime < oldest:
                path.with_suffix(".anchor").unlink(missing_ok=True)
                path.unlink()

    def write(
        self,
        taken: Iterable[tuple[int, int]],
        stale: Sequence[int],
        added: Sequence[str],
        models: Models,
        items: int,
        event_ms: int,
    ) -> None:
        """Note a batch that was counted, before its lists are made. `taken`: (partition, offset) of its messages."""
        self._batch += 1
        self._made = {}
        for model in (None, models.live, models.previous, models.canary):
            served = None if model is None else models.announced.get(model.version)
            version, digest = ("" if model is None else model.version), (_NONE if served is None else served.sha256)
            made = Made(self.life, self._batch, digest[:16], items, event_ms, self._settings, 0)
            self._made[version] = made.encode()[:-8]
        if self._tape is None:
            return
        changed = None
        if models is not self._models:
            self._models = models
            changed = _served(models.live, models), _served(models.previous, models), _served(models.canary, models)
        batch = Batch(
            self._batch,
            int(self._clock() * 1000),
            items,
            _runs(taken),
            self.retaken,
            tuple(stale),
            tuple(added),
            changed,
            models.canary_share,
        )
        self.retaken = False
        try:
            self._tape.write(_frame(batch))
        except OSError as error:
            self._give_up(error)

    def made(self, model: Recommender | None, history: int) -> bytes:
        """The record header that says what a list of the current batch was made of. `history` is the digest of the
        user's history."""
        prefix = self._made.get("" if model is None else model.version)
        return b"" if prefix is None else b"%s%08x" % (prefix, history)

    def _give_up(self, error: OSError) -> None:
        log.error("%s: %s; lists of this scorer that depend on counts cannot be made again", self._folder, error)
        self.life, self._tape = _NONE, None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.join()
        if self._tape is not None:
            self._tape.close()
            self._tape = None


class NoJournal(Journal):
    """Keeps nothing; the headers of lists still say what they were made of."""

    def __init__(self, settings: int = 0) -> None:
        super().__init__(Path(), settings, 0, 1)


def _served(model: Recommender | None, models: Models) -> ServedBy | None:
    if model is None:
        return None
    announced = models.announced.get(model.version)
    if announced is None:  # in tests
        return ServedBy(model.version, "", "")
    return ServedBy(model.version, announced.address, announced.sha256)


def _runs(taken: Iterable[tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    runs: list[tuple[int, int, int]] = []
    partition, first, following = -1, 0, 0
    for number, offset in taken:
        if number == partition and offset == following:
            following += 1
            continue
        if following > first:
            runs.append((partition, first, following - first))
        partition, first, following = number, offset, offset + 1
    if following > first:
        runs.append((partition, first, following - first))
    return tuple(runs)


# -- bytes -------------------------------------------------------------------------------------------------------------


class _Anchor(msgspec.Struct, frozen=True):
    popularity: bytes
    ids: list[str]
    counts: bytes  # safetensors


_encoder = msgspec.msgpack.Encoder()
_start, _batch = msgspec.msgpack.Decoder(SegmentStart), msgspec.msgpack.Decoder(Batch)


def _config(config: CountsConfig) -> bytes:
    return msgspec.json.encode(asdict(config))


def _frame(content: msgspec.Struct) -> bytes:
    encoded = _encoder.encode(content)
    return len(encoded).to_bytes(4, "little") + encoded


def _write_anchor(path: Path, popularity: bytes, ids: list[str], arrays: dict[str, np.ndarray]) -> None:
    content = _encoder.encode(_Anchor(popularity, ids, save(arrays)))
    aside = path.with_suffix(".partial")
    try:
        aside.write_bytes(blake2b(content, digest_size=_DIGEST).digest() + content)
        aside.replace(path)
    except OSError as error:
        log.error("%s: %s; lists of the next hours that depend on counts cannot be made again", path, error)


def read_start(tape: Path) -> SegmentStart:
    """The first frame of a segment. Raises `JournalError`."""
    with tape.open("rb") as file:
        try:
            return _start.decode(_next(file) or b"")
        except msgspec.DecodeError as error:
            raise JournalError(f"{tape} is no journal of this release: {error}") from None


def read_batches(tape: Path) -> Iterator[Batch]:
    """All batches of a segment in order, except one that was only partly written. Raises `JournalError`."""
    with tape.open("rb") as file:
        _next(file)
        try:
            while (content := _next(file)) is not None:
                yield _batch.decode(content)
        except msgspec.DecodeError as error:
            raise JournalError(f"{tape} is damaged: {error}") from None


def _next(file: BinaryIO) -> bytes | None:
    head = file.read(4)
    length = int.from_bytes(head, "little")
    content = file.read(length) if len(head) == 4 else b""
    return content if content and len(content) == length else None


def read_anchor(tape: Path, start: SegmentStart) -> tuple[Popularity, StreamCounts]:
    """What had been counted when a segment began. Raises `JournalError`."""
    popularity = Popularity(start.half_life_ms)
    try:
        config = msgspec.json.decode(start.counts, type=CountsConfig)
        if not start.anchored:
            return popularity, StreamCounts(config)
        path = tape.with_suffix(".anchor")
        whole = path.read_bytes()
        if blake2b(whole[_DIGEST:], digest_size=_DIGEST).digest() != whole[:_DIGEST]:
            raise JournalError(f"{path} is damaged")
        anchor = msgspec.msgpack.decode(memoryview(whole)[_DIGEST:], type=_Anchor)
        popularity.restore(anchor.popularity)
        return popularity, StreamCounts.restore(config, anchor.ids, load(anchor.counts))
    except FileNotFoundError as error:
        raise JournalError(f"{error.filename} is not there: its process ended while it was written") from None
    except (msgspec.DecodeError, SafetensorError, KeyError, ValueError) as error:
        raise JournalError(f"{tape}: {error}") from None
