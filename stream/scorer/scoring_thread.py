"""The one thread that scores: everything it owns, and the calls by which the event loop hands it work."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import torch

from ops.metrics import ScorerMetrics
from stream.scorer.list_maker import Answer
from stream.scorer.renewal import RenewedPage, renew_page
from stream.scorer.requests import Request, coalesce
from stream.scorer.scoring import Scored, Scoring
from stream.scorer.shown_lists import ShownLists
from stream.wire.items import ItemRecord
from stream.wire.records import Rejected
from stream.wire.windows_topic import WindowSender

__all__ = ["ScoredBatch", "ScoringThread"]

_Result = TypeVar("_Result")


class ScoredBatch(NamedTuple):
    scored: Scored
    rejected: list[tuple[Any, Rejected]]  # messages that are no refresh
    seen: Mapping[int, tuple[int, int]]  # of every partition, up to this batch


class ScoringThread:
    """`call` runs any other method of this class on the thread."""

    def __init__(
        self,
        scoring: Scoring,
        lists: ShownLists,
        windows: WindowSender,
        metrics: ScorerMetrics,
        device: torch.device,
    ) -> None:
        self._scoring, self._lists, self._windows = scoring, lists, windows
        self._metrics, self._device = metrics, device
        self._newest_ms: dict[int, int] = {}  # event time by owned partition
        self._owned: Set[int] = frozenset()
        self._executor = ThreadPoolExecutor(1, "scoring")

    async def call(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def score(self, messages: Sequence[Any]) -> ScoredBatch:
        self._metrics.events_consumed["refreshes"].inc(len(messages))
        requests: list[Request] = []
        rejected: list[tuple[Any, Rejected]] = []
        offsets: dict[int, list[int]] = defaultdict(list)
        for message in messages:
            partition = message.partition
            offsets[partition].append(message.offset)
            try:
                request = Request.decode(partition, message.offset, message.key, message.value)
            except Rejected as error:
                self._metrics.dead_letters[error.reason].inc()
                rejected.append((message, error))
                continue
            requests.append(request)
            self._newest_ms[partition] = max(self._newest_ms.get(partition, 0), request.history.newest_ms)
        for partition, seen in offsets.items():
            self._lists.advance(partition, min(seen), max(seen) + 1)
        wanted = coalesce(requests)
        scored = self._scoring.score(wanted) if wanted else Scored([], [], {})
        return ScoredBatch(scored, rejected, self._lists.spans())

    def answer_canary(self, batch: ScoredBatch) -> list[Answer]:
        return self._scoring.answer_canary(batch.scored.canary_users)

    def note_delivered(self, batch: ScoredBatch, canary_answers: Sequence[Answer]) -> None:
        answers = self._scoring.with_shadows(batch.scored.answers)
        self._scoring.delivered([*answers, *canary_answers], batch.scored.counted_for, batch.seen)

    def change_items(self, changes: Mapping[str, ItemRecord | None]) -> set[str]:
        """Take in what `items` says; returns what may not be listed any more, items whose time ended included."""
        catalogue, now_ms = self._scoring.catalogue, int(time.time() * 1000)
        gone = catalogue.turned(now_ms) | (catalogue.put(changes, now_ms) if changes else set())
        self._metrics.unlisted_items.set(len(catalogue.unlisted(now_ms)))
        return gone

    def unlisted(self) -> set[str]:
        """All items that are not listed to everybody now."""
        return self._scoring.catalogue.unlisted(int(time.time() * 1000))

    def renew(self, gone: Collection[str], after: bytes | None) -> RenewedPage:
        """See `renew_page`."""
        return renew_page(self._lists, self._scoring.catalogue, gone, after, self._owned, int(time.time() * 1000))

    def note_renewed(self, page: RenewedPage) -> None:
        """The brokers have these lists."""
        self._metrics.renewed_lists.inc(len(page.lists))
        self._lists.put({renewed.user: renewed.shown for renewed in page.lists}, self._lists.spans())

    def assigned(self, partitions: set[int]) -> None:
        """These partitions are owned from now on, and no others."""
        self._owned = frozenset(partitions)
        self._newest_ms = {number: ms for number, ms in self._newest_ms.items() if number in partitions}

    def keep_house(self) -> None:
        """Save what survives a restart, send the windows and set the gauges."""
        self._scoring.save_popularity()
        self._scoring.signals.export()
        self._windows.send(self._scoring.signals.window_signals.windows, now=True)
        if self._device.type == "cuda":
            self._metrics.gpu_memory_peak_bytes.set(torch.cuda.max_memory_allocated(self._device))
        self._metrics.state_bytes["lists"].set(self._lists.store.bytes_on_disk())
        self._metrics.state_pending_compaction_bytes["lists"].set(self._lists.store.pending_compaction_bytes())
        if self._newest_ms:
            self._metrics.stream_watermark_timestamp["refreshes"].set(min(self._newest_ms.values()) / 1000)

    def close(self) -> None:
        """Finish what is queued, save it and close the store. Not on the thread itself."""
        self._executor.shutdown(wait=True)
        self.keep_house()
        self._lists.close()
