"""The agent of the Faust app: from the records of `refreshes` to the acks behind their lists.

    take a batch -> keep the newest refresh per user -> score on one thread -> send
                 -> let the canary answer its users -> send
                        -> await delivery -> shadow -> ack, while the next batch is scored

An offset is committed only after the lists of all records before it were delivered. After a crash some lists are made
again, and a list that arrives twice is the same list. Faust does the group, the rebalances, the flow of records and the
commits. Batches are taken from the agent's channel itself: `Stream.take` acks a batch whose body raised,
`Stream.noack_take` holds every event back for its whole timer, and both spend more time on an event than its scoring
takes (see `stream.clients.faust_records`). For the same reason lists are sent as ready record batches, one per
partition.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence, Set
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from ops.metrics import ScorerMetrics
from stream.scorer.inbox import Inbox
from stream.scorer.list_maker import Answer
from stream.scorer.publisher import Departure, Publisher, offsets_of
from stream.scorer.scoring_thread import ScoredBatch, ScoringThread

if TYPE_CHECKING:
    import faust
    from faust.streams import Stream
    from faust.types.tuples import Message

__all__ = ["RefreshStream"]

log = logging.getLogger(__name__)


class _Sent(NamedTuple):
    batch: ScoredBatch
    canary_answers: list[Answer]
    departures: list[Departure]
    delivered: asyncio.Future[Any]  # done when the brokers have all of it


class RefreshStream:
    """`progressed` is called when a batch is finished. `failed` is set when a batch failed; nothing is acked then."""

    def __init__(
        self,
        app: faust.App,
        batch_refreshes: int,
        thread: ScoringThread,
        publisher: Publisher,
        metrics: ScorerMetrics,
        progressed: Callable[[], None],
    ) -> None:
        self._app, self._batch_refreshes = app, batch_refreshes
        self._thread, self._publisher, self._metrics = thread, publisher, metrics
        self._progressed = progressed
        self._inbox = Inbox(lambda: app.consumer)
        self.answered: set[int] = set()  # partitions whose refreshes are answered
        self._sending = asyncio.Lock()  # held from the moment a batch is taken until its last list is sent
        self._finishing: asyncio.Task[None] | None = None  # of the batch before: waits for deliveries, then acks
        self.failed = False

    def hold(self, partitions: Set[int]) -> None:
        """These partitions were assigned, and no others: answer none of them until `release`."""
        self._inbox.hold(partitions)
        self.answered.clear()

    def release(self, number: int) -> None:
        """The last lists of this partition are known: it may be answered."""
        self._inbox.release(number)
        self.answered.add(number)

    async def score(self, stream: Stream) -> None:
        """The agent's body."""
        self._inbox.open(aiter(stream.channel).queue)  # Faust subscribes to what is iterated
        while not self.failed:
            try:
                await self._inbox.wait()
                async with self._sending:
                    messages = self._inbox.take(self._batch_refreshes)
                    if messages:  # else a rebalance came in between
                        sent = await self._send_lists(messages)
                        await self._finished()  # deliveries are noted and acked in order; two batches are under way
                        self._finishing = asyncio.create_task(self._finish(messages, sent))
            except StopAsyncIteration:  # Faust closes its channels when it stops
                return
            except Exception:  # noqa: BLE001 - logged there; the process ends and its successor reads again
                self._give_up()

    async def _send_lists(self, messages: Sequence[Message]) -> _Sent:
        """Score a batch and hand all of its lists to the producer."""
        batch = await self._thread.call(self._thread.score, messages)
        started = time.perf_counter()
        departures = await self._publisher.send_lists(batch.scored.answers)
        deliveries = [departure.delivered for departure in departures]
        if batch.rejected:
            deliveries += await self._publisher.send_rejected(batch.rejected)
        delivered = asyncio.gather(*deliveries)
        publish = self._metrics.scoring["publish"]
        delivered.add_done_callback(lambda _: publish.observe(time.perf_counter() - started))
        canary_answers: list[Answer] = []
        if batch.scored.canary_users:
            canary_answers = await self._thread.call(self._thread.answer_canary, batch)
            later = await self._publisher.send_lists(canary_answers)
            departures += later
            delivered = asyncio.gather(delivered, *[departure.delivered for departure in later])
        return _Sent(batch, canary_answers, departures, delivered)

    @asynccontextmanager
    async def between_batches(self) -> AsyncIterator[None]:
        """Inside this context no list of a batch is on its way, so what is published here keeps its place in order."""
        async with self._sending:
            await self._finished()
            yield

    async def _finish(self, messages: Sequence[Message], sent: _Sent) -> None:
        """Wait until the lists of a batch are delivered, note them, and ack the batch. Never raises."""
        try:
            await sent.delivered
            offsets = offsets_of(sent.departures)
            await self._thread.call(self._thread.note_delivered, sent.batch, sent.canary_answers, offsets)
            if self.failed:
                return
            for message in messages:
                message.ack(self._app.consumer)
            self._seen_by_faust(messages)
            self._progressed()
        except Exception:  # noqa: BLE001 - logged there; the process ends and its successor reads again
            self._give_up()

    async def _finished(self) -> None:
        if self._finishing is not None:
            await asyncio.wait([self._finishing])  # which, unlike `await`, does not pass a cancellation on

    def _give_up(self) -> None:
        """Ack nothing of this batch, nor of a later one: the process ends, and its successor reads them again."""
        log.exception("a batch failed")
        self.failed = True

    def _seen_by_faust(self, messages: Sequence[Message]) -> None:
        """Faust warns about partitions whose stream yields nothing, and batches are not taken through its stream."""
        now = time.monotonic()
        self._app.monitor.stream_inbound_time.update({message.tp: now for message in messages})

    @property
    def idle(self) -> bool:
        """Nothing is queued or being worked on."""
        if self._sending.locked() or not self._inbox.empty:
            return False
        return self._finishing is None or self._finishing.done()

    async def end(self) -> None:
        """Finish the batch at hand; no other begins."""
        await self._sending.acquire()
        await self._finished()
