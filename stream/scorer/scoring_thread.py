"""The one thread that scores: everything it owns, and the calls by which the event loop gives it work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import torch

from ops.metrics import ScorerMetrics
from stream.pilots.topic import PilotSender
from stream.scorer.counts_file import CountsFile
from stream.scorer.list_maker import Answer
from stream.scorer.model_loader import Looked
from stream.scorer.popularity_file import PopularityFile
from stream.scorer.requests import Request, coalesce
from stream.scorer.scoring import Scored, Scoring
from stream.scorer.shown_lists import Offsets, ShownLists
from stream.wire.examples_topic import ExampleSender
from stream.wire.records import Rejected
from stream.wire.windows_topic import WindowSender

__all__ = ["Keeping", "ScoredBatch", "ScoringThread"]

log = logging.getLogger(__name__)

_MODEL_SECONDS = 30.0  # longest wait for a model to be loaded
_Result = TypeVar("_Result")


class ScoredBatch(NamedTuple):
    scored: Scored
    rejected: list[tuple[Any, Rejected]]  # messages that are no refresh


class Keeping(NamedTuple):
    """Where `keep_house` writes."""

    popularity: PopularityFile
    counts: CountsFile
    windows: WindowSender
    examples: ExampleSender
    pilots: PilotSender


class ScoringThread:
    """`call` runs any other method of this class on the thread."""

    def __init__(
        self,
        scoring: Scoring,
        lists: ShownLists,
        keeping: Keeping,
        metrics: ScorerMetrics,
        device: torch.device,
        looked: Looked,
    ) -> None:
        self._scoring, self._lists, self._keeping = scoring, lists, keeping
        self._metrics, self._device = metrics, device
        self._looked, self._awaited = looked, -1
        self._newest_ms: dict[int, int] = {}  # event time by owned partition; 0 while nothing is known
        self._executor = ThreadPoolExecutor(1, "scoring")

    async def call(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def score(self, messages: Sequence[Any]) -> ScoredBatch:
        self._metrics.events_consumed["refreshes"].inc(len(messages))
        taken = [(message.partition, message.offset) for message in messages]
        requests: list[Request] = []
        rejected: list[tuple[Any, Rejected]] = []
        newest_ms = self._newest_ms
        for message in messages:
            partition = message.partition
            try:
                request = Request.decode(partition, message.offset, message.key, message.value)
            except Rejected as error:
                self._metrics.dead_letters[error.reason].inc()
                rejected.append((message, error))
                continue
            requests.append(request)
            if partition in newest_ms:  # else it has just moved away
                newest_ms[partition] = max(newest_ms[partition], request.newest_ms)
        self._await_model(max([request.live_offset for request in requests], default=-1))
        wanted = coalesce(requests)
        return ScoredBatch(self._scoring.score(wanted, taken) if wanted else Scored([], [], {}), rejected)

    def _await_model(self, live_offset: int) -> None:
        """Wait for the model that a request names. A user whose history is sent again for a new model must not get a
        list of the model before, because that list would stay until the user's next event. The batch is acked after its
        lists, so a process that is killed while it waits loses no request."""
        if live_offset <= self._awaited:
            return
        self._awaited = live_offset  # wait only once: a topic `models` that was made anew may never reach this offset
        if not self._looked.wait(_MODEL_SECONDS, live_offset):
            log.warning("a model that is live since %.0f s is not loaded: the one before answers", _MODEL_SECONDS)

    def answer_canary(self, batch: ScoredBatch) -> list[Answer]:
        return self._scoring.answer_canary(batch.scored.canary_users)

    def note_delivered(self, batch: ScoredBatch, canary_answers: Sequence[Answer], offsets: Offsets) -> None:
        self._scoring.delivered([*batch.scored.answers, *canary_answers], batch.scored.before, offsets)

    def assigned(self, partitions: Set[int]) -> None:
        """These partitions are owned from now on, and no others."""
        self._newest_ms = {number: self._newest_ms.get(number, 0) for number in partitions}

    def keep_house(self, closing: bool = False) -> None:
        """Save popularity and counts, send windows, examples and counts of pilots, and set the gauges."""
        self._keeping.popularity.save(self._scoring.saved_popularity())
        self._keeping.counts.save(self._scoring.stages.second_stage.events.counts, now=closing)
        self._scoring.signals.export()
        self._keeping.windows.send(self._scoring.signals.window_signals.windows, now=True)
        self._keeping.pilots.send(self._scoring.pilots.tally.take())
        self._keeping.examples.send(self._scoring.stages.examples.take())
        if self._device.type == "cuda":
            self._metrics.gpu_memory_peak_bytes.set(torch.cuda.max_memory_allocated(self._device))
        stores = self._lists.stores
        self._metrics.state_bytes["lists"].set(sum(store.bytes_on_disk() for store in stores))
        pending = sum(store.pending_compaction_bytes() for store in stores)
        self._metrics.state_pending_compaction_bytes["lists"].set(pending)
        newest_ms = [ms for ms in self._newest_ms.values() if ms]
        if newest_ms:
            self._metrics.stream_watermark_timestamp["refreshes"].set(min(newest_ms) / 1000)

    def close(self) -> None:
        """Finish the queued work, save, and close the stores. Must not be called on the thread itself."""
        self._executor.shutdown(wait=True)
        self.keep_house(closing=True)
        self._scoring.journal.close()
        self._lists.close()
