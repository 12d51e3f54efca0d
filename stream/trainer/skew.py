"""Checks whether the scorers recommend what the trainer would: it ranks their newest lists again, from its own view.

Rounding may swap neighbours of nearly equal score, so a list agrees when its first ten items are among the trainer's
first twenty. Wrong vocabularies, weights or histories change a list far more than that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

import msgspec
from kafka import TopicPartition
from kafka.errors import KafkaError

from model.errors import ModelError
from model.recommend import Recommender
from ops.metrics import TrainerMetrics
from state.history import History
from stream.clients.connection import KafkaConnection
from stream.clients.reader import TopicReader
from stream.pilots.pilot import CONTROL
from stream.wire.meaning import ALL_ALIKE, EventKinds
from stream.wire.packing import pack_decoded
from stream.wire.records import InputRecord, Recommendation

__all__ = ["PublishedLists", "SkewCheck", "disagreement"]

log = logging.getLogger(__name__)

_EVERY_SECONDS = 60.0
_SHUT = 0.01  # share of differing lists that shuts the gate
_FIRST, _AMONG, _DEEP = 10, 20, 100
_ENOUGH = 5  # least number of items whose order is compared
_SWAPPED = 2  # ranks by which items of nearly equal score may be out of order
_LEAST_EACH = 50
_recommendation = msgspec.json.Decoder(Recommendation)


class SkewCheck:
    """Compares lists once a minute; `shut` keeps candidates from going live while too many lists differ."""

    def __init__(self, published: PublishedLists, metrics: TrainerMetrics) -> None:
        self._published, self._metrics = published, metrics
        self._due = time.monotonic() + _EVERY_SECONDS
        self.share = 0.0
        self._version = ""  # of the model whose lists were compared

    @property
    def shut(self) -> bool:
        return self.share > _SHUT

    def turn(self, live: Recommender | None, histories: Callable[[int, list[bytes]], Mapping[bytes, History]]) -> None:
        """Call often. `histories` returns the histories of these users of a partition."""
        if live is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + _EVERY_SECONDS
        if live.version != self._version:  # a share is about one model, and for the next one there may never be a share
            self._version = live.version
            self._show(0.0)
        try:
            share = self._published.differing(live, histories)
        except (KafkaError, ModelError) as error:
            log.warning("the scorers' lists could not be compared: %s", error)
            return
        if share is not None:
            self._show(share)

    def _show(self, share: float) -> None:
        self.share = share
        self._metrics.train_serve_mismatch_ratio.set(share)

    def close(self) -> None:
        self._published.close()


class PublishedLists:
    """Compares the newest lists on `recommendations`, in blocks of at least `block` comparable lists. The share of
    differing lists is that of the last full block. Each list is compared once, so lists that were published before the
    scorers were repaired do not keep the share high.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        topic: str,
        partitions: int,
        kinds: EventKinds = ALL_ALIKE,
        block: int = 100,
    ) -> None:
        self._kinds = kinds
        self._partitions, self._block = [TopicPartition(topic, number) for number in range(partitions)], block
        self._each = max(2 * block // partitions, _LEAST_EACH)  # most lists of a partition that one call compares
        self._following: dict[TopicPartition, int] = {}  # offset after the last list that was compared
        self._version = ""  # of the model that the counts are about
        self._compared = self._differing = 0  # lists of the block that is not full yet
        self._share: float | None = None
        self._reader = TopicReader(connection)
        self._reader.assign(self._partitions)

    def differing(
        self, model: Recommender, histories: Callable[[int, list[bytes]], Mapping[bytes, History]]
    ) -> float | None:
        """The share of lists that differ from what `model` makes of the users' `histories`. None while too few of its
        lists were compared, and for a model with a reranker. Raises `KafkaError` and `ModelError`."""
        if model.reranker is not None:
            return None  # its lists depend on counts that only the scorers have
        if model.version != self._version:
            self._version, self._compared, self._differing, self._share = model.version, 0, 0, None
        for number, lists in self._newest().items():
            known = histories(number, [shown.user.encode() for shown in lists])
            found = disagreement(lists, known, model, self._kinds)
            self._compared, self._differing = self._compared + found[0], self._differing + found[1]
        if self._compared >= self._block:
            self._share = self._differing / self._compared
            self._compared = self._differing = 0
        return self._share

    def _newest(self, timeout_seconds: float = 2.0) -> dict[int, list[Recommendation]]:
        """The newest lists of every partition that were not returned before."""
        beginnings, ends = self._reader.beginnings(self._partitions), self._reader.ends(self._partitions)
        for tp, end in ends.items():
            self._reader.seek(tp, max(end - self._each, beginnings[tp], min(self._following.get(tp, 0), end)))
        lists: dict[int, list[Recommendation]] = {}
        deadline = time.monotonic() + timeout_seconds
        # A poll may return records of one partition only; records that come later are left to the next call.
        while any(self._reader.position(tp) < end for tp, end in ends.items()) and time.monotonic() < deadline:
            for tp, records in self._reader.poll(0.1, self._each * len(self._partitions)).items():
                lists.setdefault(tp.partition, []).extend(_decoded(records))
        self._following = {tp: self._reader.position(tp) for tp in self._partitions}
        return lists

    def close(self) -> None:
        self._reader.close()


def _decoded(records: Iterable[InputRecord]) -> Iterator[Recommendation]:
    """The lists among these records, without tombstones and without records that are no list of a scorer."""
    for record in records:
        if record.value is not None:
            try:
                yield _recommendation.decode(record.value)
            except msgspec.DecodeError as error:
                log.warning("%s/%d, offset %d is no list: %s", record.topic, record.partition, record.offset, error)


def disagreement(
    lists: Sequence[Recommendation],
    histories: Mapping[bytes, History],
    model: Recommender,
    kinds: EventKinds = ALL_ALIKE,
) -> tuple[int, int]:
    """(Lists compared, lists that differ). Compared are the lists by `model` whose user's history has not changed since
    the list was made, except lists of a pilot's variant."""
    asked = [
        (shown, history)
        for shown in {shown.user: shown for shown in lists}.values()
        if shown.model == model.version
        and (shown.pilot is None or shown.pilot.variant == CONTROL)
        and (history := histories.get(shown.user.encode())) is not None
        and history.newest_ms == shown.as_of
    ]
    if not asked:
        return 0, 0
    newest_ms = max(history.newest_ms for _, history in asked)
    packed, hidden = pack_decoded(model.items, [history for _, history in asked], kinds, newest_ms)
    ranked = model.rank(packed, min(_DEEP, len(model.items)), hidden).columns.tolist()
    differ = 0
    for (shown, _), columns in zip(asked, ranked, strict=True):
        own = {model.items.ids[column]: rank for rank, column in enumerate(columns) if column >= 0}
        differ += not _agrees([scored.item for scored in shown.items[:_FIRST]], own)
    return len(asked), differ


def _agrees(shown: Sequence[str], own: Mapping[str, int]) -> bool:
    """`own` are ranks in the trainer's list. It also has items that scorers may not list, so the ranks of a scorer's
    items may have gaps in it, but their order is the same."""
    ranks = [own.get(item, _DEEP) for item in shown]
    if all(rank < _AMONG for rank in ranks):
        return True
    before = accumulate(ranks, max)
    ordered = all(rank >= most - _SWAPPED for rank, most in zip(ranks, before, strict=True))
    return len(ranks) >= _ENOUGH and ordered and all(rank < _DEEP for rank in ranks)
