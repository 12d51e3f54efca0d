"""The scorer: refreshes in, ranked lists out, by a Faust stream.

    take a batch -> keep the newest refresh per user -> score on one thread -> send
                 -> let the candidate treat its users -> send
                        -> await delivery -> shadow -> ack, while the next batch is scored

An offset is committed only after the lists of all records before it were delivered; a crash repeats lists, and a list
that arrives twice is the same list. Faust owns the group, the rebalances, the flow of records and the commits. Batches
are taken from the agent's channel itself: `Stream.take` acks a batch whose body raised, `Stream.noack_take` holds every
event back for its whole timer, and both spend more on an event than its scoring costs (see
`stream.clients.faust_records`). Lists leave as ready record batches, one per partition, for the same reason.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import faust
import torch
from kafka.admin import KafkaAdminClient

from ops.metrics import ScorerMetrics
from state.store import StoreConfig
from stream.clients.connection import KafkaConnection
from stream.clients.faust_records import RawTopic, deliver_eagerly
from stream.process import spare_the_collector
from stream.scorer.model_loader import ModelLoader
from stream.scorer.serving import Answer, Models, Request, Server, ServingConfig, coalesce
from stream.scorer.shown_lists import ShownLists
from stream.wire.dead_letters import dead_letter
from stream.wire.records import Rejected
from stream.wire.topics import SCORER_GROUP, TopicPlan, ensure_topics
from stream.wire.windows_topic import WindowSender

__all__ = ["Scorer", "ScorerConfig", "run_scorer"]

log = logging.getLogger(__name__)

_HOUSEKEEPING_SECONDS = 5.0
_FIRST_MODELS_SECONDS = 15.0  # longest wait at the start for the models announced before it
_LEAVE_SECONDS = 4.0  # for Faust to commit and leave the group


@dataclass(frozen=True)
class ScorerConfig:
    state_dir: Path
    group: str = SCORER_GROUP
    batch_refreshes: int = 512  # most refreshes scored together
    session_seconds: float = 30.0  # silence after which the group gives this worker's partitions away
    stall_seconds: float = 60.0  # without progress the process gives up, for its supervisor to start it again
    torch_threads: int = 1
    serving: ServingConfig = field(default_factory=ServingConfig)
    store: StoreConfig = field(default_factory=StoreConfig)

    def __post_init__(self) -> None:
        for name in ("batch_refreshes", "session_seconds", "stall_seconds", "torch_threads"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass
class _Record:
    """A consumed record, as `stream.wire.dead_letters` reads it."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class _Batch(NamedTuple):
    answers: list[Answer]
    treated: list[Answer]  # not ready before the candidate treated them
    rejected: list[tuple[Any, Rejected]]
    seen: Mapping[int, tuple[int, int]]  # of every partition, up to this batch


class Scorer:
    """One worker of the scorer group. Make it inside the event loop that runs it."""

    def __init__(
        self,
        config: ScorerConfig,
        connection: KafkaConnection,
        plan: TopicPlan,
        metrics: ScorerMetrics,
        device: torch.device,
    ) -> None:
        self._config, self._plan, self._metrics = config, plan, metrics
        admin = KafkaAdminClient(**connection.kafka_python())
        try:
            ensure_topics(admin, plan)
        finally:
            admin.close()
        self._lists = ShownLists.open(config.state_dir / "lists", config.store)
        self.server = Server(config.serving, self._lists, metrics)
        self._windows = WindowSender(connection, plan.monitor_windows)
        self._device = device
        self._loader = ModelLoader(connection, plan.models, device, metrics, self._swap, config.serving.list_items)
        self._executor = ThreadPoolExecutor(1, "scoring")
        self._sending = asyncio.Lock()  # held while a batch is between its channel and its last list's departure
        self._finishing: asyncio.Task[None] | None = None  # the batch before, until its acks
        self._failed = False
        self._joined = False
        self._progressed = time.monotonic()
        self._channel: Any = None
        self._newest_ms: dict[int, int] = {}  # event time by owned partition
        self.app = _faust_app(config, connection, plan)
        self.app.agent(self.app.topic(plan.refreshes), concurrency=1, name="score")(self._score)
        self.app.on_partitions_assigned.connect(self._assigned)

    def _swap(self, models: Models) -> None:
        self.server.models = models  # one assignment: a batch in flight keeps the set it started with

    async def _assigned(self, app: Any, assigned: set[Any], **options: Any) -> None:
        log.info("partitions assigned: %s", sorted(tp.partition for tp in assigned))
        self._metrics.rebalances.inc()
        self._newest_ms = {p: ms for p, ms in self._newest_ms.items() if p in {tp.partition for tp in assigned}}
        self._joined = True

    # -- the stream ----------------------------------------------------------------------------------------------------

    async def _score(self, stream: Any) -> None:
        self._channel = aiter(stream.channel)  # Faust subscribes to what is iterated
        queue = self._channel.queue
        while not self._failed:
            try:
                messages = [await queue.get()]
                async with self._sending:
                    while len(messages) < self._config.batch_refreshes and not queue.empty():
                        messages.append(queue.get_nowait())
                    batch, delivered = await self._send_lists(messages)
                    await self._finished()  # deliveries are noted and acked in order, and two batches are held at most
                    self._finishing = asyncio.create_task(self._finish(messages, batch, delivered))
            except StopAsyncIteration:  # Faust closes its channels when it stops
                return
            except Exception:
                self._give_up()

    async def _finish(self, messages: Sequence[Any], batch: _Batch, delivered: asyncio.Future[Any]) -> None:
        """From the departure of a batch's lists to its acks. Never raises."""
        try:
            await delivered
            await asyncio.get_running_loop().run_in_executor(self._executor, self._note_delivered, batch)
            if self._failed:
                return
            for message in messages:
                message.ack(self.app.consumer)
            self._seen_by_faust(messages)
            self._progress()
        except Exception:
            self._give_up()

    def _note_delivered(self, batch: _Batch) -> None:
        """Runs on the scoring thread."""
        self.server.shadow(batch.answers)
        self.server.delivered(batch.answers + batch.treated, batch.seen)

    async def _finished(self) -> None:
        if self._finishing is not None:
            await asyncio.wait([self._finishing])  # which, unlike `await`, does not pass a cancellation on

    def _give_up(self) -> None:
        """Nothing of this batch is acked, nor of a later one: let the process end, its successor reads them again."""
        log.exception("a batch failed")
        self._failed = True

    def _seen_by_faust(self, messages: Sequence[Any]) -> None:
        """Faust complains of partitions whose stream yields nothing, and a channel is not its stream."""
        now = time.monotonic()
        self.app.monitor.stream_inbound_time.update({message.tp: now for message in messages})

    async def _send_lists(self, messages: Sequence[Any]) -> tuple[_Batch, asyncio.Future[Any]]:
        """Returns with all lists on their way; the future is done when the brokers have them."""
        loop = asyncio.get_running_loop()
        batch = await loop.run_in_executor(self._executor, self._answer, messages)
        started = time.perf_counter()
        producer = (await self.app.maybe_start_producer())._ensure_producer()
        deliveries = await self._send(producer, batch.answers)
        for message, error in batch.rejected:
            letter = dead_letter(_record(message), error, "scorer", self._plan.message_bytes)
            deliveries.append(await producer.send(self._plan.dead_letters, **letter))
        delivered = asyncio.gather(*deliveries)
        publish = self._metrics.scoring["publish"]
        delivered.add_done_callback(lambda _: publish.observe(time.perf_counter() - started))
        if batch.treated:
            await loop.run_in_executor(self._executor, self.server.treat, batch.treated)
            delivered = asyncio.gather(delivered, *await self._send(producer, batch.treated))
        return batch, delivered

    def _answer(self, messages: Sequence[Any]) -> _Batch:
        """Runs on the scoring thread."""
        self._metrics.events_consumed["refreshes"].inc(len(messages))
        requests: list[Request] = []
        rejected: list[tuple[Any, Rejected]] = []
        offsets: dict[int, list[int]] = defaultdict(list)
        for message in messages:
            offsets[message.partition].append(message.offset)
            try:
                request = Request.decode(message.partition, message.offset, message.key, message.value)
            except Rejected as error:
                self._metrics.dead_letters[error.reason].inc()
                rejected.append((message, error))
                continue
            requests.append(request)
            self._newest_ms[message.partition] = max(
                self._newest_ms.get(message.partition, 0), request.history.newest_ms
            )
        for partition, seen in offsets.items():
            self._lists.advance(partition, min(seen), max(seen) + 1)
        wanted = coalesce(requests)
        answers, treated = self.server.score(wanted) if wanted else ([], [])
        return _Batch(answers, treated, rejected, self._lists.spans())

    async def _send(self, producer: Any, answers: Sequence[Answer]) -> list[asyncio.Future[Any]]:
        """Hand the answers over as one record batch per partition, or more where they do not fit."""
        topic, now_ms = self._plan.recommendations, int(time.time() * 1000)
        by_partition: dict[int, list[Answer]] = defaultdict(list)
        for answer in answers:
            by_partition[answer.request.partition].append(answer)
        deliveries: list[asyncio.Future[Any]] = []
        for partition, ready in by_partition.items():
            batch = producer.create_batch()
            for answer in ready:
                record = {"key": answer.request.user, "value": answer.value, "timestamp": now_ms}
                if batch.append(**record) is None:  # full; the first record of a batch always fits
                    deliveries.append(await producer.send_batch(batch, topic, partition=partition))
                    batch = producer.create_batch()
                    batch.append(**record)
            deliveries.append(await producer.send_batch(batch, topic, partition=partition))
        return deliveries

    # -- liveness ------------------------------------------------------------------------------------------------------

    def _progress(self) -> None:
        self._progressed = time.monotonic()
        self._metrics.progress_timestamp.set_to_current_time()

    async def _watch(self) -> None:
        """Progress is a finished batch, or the brokers saying that nothing waits."""
        while True:
            await asyncio.sleep(0.5)
            before = self._progressed
            try:
                idle = await asyncio.wait_for(self._idle(), 10)
            except Exception as error:  # a broker that does not answer is no progress, and no end either
                log.debug("no word of what waits: %s", error)
                continue
            if idle and before == self._progressed:
                self._progress()

    async def _idle(self) -> bool:
        if not self._joined or self._channel is None or self._sending.locked() or not self._channel.queue.empty():
            return False
        if self._finishing is not None and not self._finishing.done():
            return False
        consumer = self.app.consumer
        owned = [tp for tp in consumer.assignment() if tp.topic == self._plan.refreshes]
        ends = await consumer.highwaters(*owned) if owned else {}
        positions = {tp: await consumer.position(tp) for tp in owned}
        return all(position is not None and position >= ends[tp] for tp, position in positions.items())

    def _keep_house(self) -> None:
        """Runs on the scoring thread."""
        self.server.save_popularity()
        self.server.watch.show()
        self._windows.send(self.server.watch.signals.windows, now=True)
        if self._device.type == "cuda":
            self._metrics.gpu_memory_peak_bytes.set(torch.cuda.max_memory_allocated(self._device))
        self._metrics.state_bytes["lists"].set(self._lists.store.bytes_on_disk())
        self._metrics.state_pending_compaction_bytes["lists"].set(self._lists.store.pending_compaction_bytes())
        if self._newest_ms:
            self._metrics.stream_watermark_timestamp["refreshes"].set(min(self._newest_ms.values()) / 1000)

    # -- life ----------------------------------------------------------------------------------------------------------

    async def run(self, stop: threading.Event) -> bool:
        """Score until `stop`; False when a batch failed, nothing moved for too long, or Faust gave up."""
        loop, config = asyncio.get_running_loop(), self._config
        self._loader.start()
        await loop.run_in_executor(None, self._loader.looked.wait, _FIRST_MODELS_SECONDS)
        self.app.finalize()
        deliver_eagerly(self.app.consumer)
        await asyncio.wait_for(self.app.start(), config.stall_seconds)
        log.info("scorer reads %s", self._plan.refreshes)
        watch = asyncio.create_task(self._watch())
        kept = self._progressed = time.monotonic()
        try:
            while not (stop.is_set() or self._failed or self.app.should_stop):
                await asyncio.sleep(0.1)
                now = time.monotonic()
                if now - self._progressed > config.stall_seconds:
                    log.error("no progress for %.0f s, giving up", config.stall_seconds)
                    self._failed = True
                if now - kept > _HOUSEKEEPING_SECONDS:
                    kept = now
                    await loop.run_in_executor(self._executor, self._keep_house)
        finally:
            watch.cancel()
        return stop.is_set() and not self._failed

    async def leave(self) -> bool:
        """Finish the batch at hand, commit, leave the group; False when Kafka did not let go in time."""
        leaving = asyncio.create_task(self._leave())
        # Only waited for, never cancelled: Faust swallows the cancellation of its own stop and would wait on.
        await asyncio.wait([leaving], timeout=_LEAVE_SECONDS)
        answered = leaving.done() and not leaving.cancelled()
        error = leaving.exception() if answered else TimeoutError(f"Kafka did not answer in {_LEAVE_SECONDS} s")
        if error is not None:
            log.warning("leaving without a last commit, the next scorer repeats some lists: %r", error)
        return error is None

    async def _leave(self) -> None:
        await self._sending.acquire()  # and keep it: no other batch begins
        await self._finished()
        # `App.stop` cancels its own last commit. One that is under way makes the first of these wait for it.
        await self.app.consumer.commit()
        await self.app.consumer.commit()
        await self.app.stop()

    def close(self, broker_answers: bool) -> None:
        """Store what shall survive. Clients are closed only while there is a broker to tell: each would wait for it."""
        self._executor.shutdown(wait=True)
        self._keep_house()
        self._lists.close()
        if broker_answers:
            self._windows.close()
            self._loader.close()


def _faust_app(config: ScorerConfig, connection: KafkaConnection, plan: TopicPlan) -> Any:
    return faust.App(
        plan.prefix + config.group,
        **connection.faust(),
        datadir=config.state_dir / "faust",
        Topic=RawTopic,  # nothing is decoded by Faust, which would ack a record that it cannot decode
        topic_partitions=plan.partitions,
        topic_allow_declare=False,  # topics are made in one place
        topic_disable_leader=True,
        table_standby_replicas=0,  # without tables and their assignor plain round robin remains
        stream_wait_empty=False,  # a rebalance need not wait: a repeated list is the same list
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=2000,
        broker_commit_interval=1.0,  # what a rebalance or a crash repeats
        broker_session_timeout=config.session_seconds,
        broker_heartbeat_interval=max(config.session_seconds / 10, 0.3),
        broker_request_timeout=max(90.0, config.session_seconds),
        broker_max_poll_interval=300.0,
        producer_acks=-1,
        producer_linger=0,  # a batch of lists is a batch already
        producer_max_batch_size=512 * 1024,
        producer_max_request_size=8 * 1024 * 1024,
        producer_request_timeout=config.stall_seconds,  # the default keeps a failed list for 20 minutes
        stream_buffer_maxsize=4096,
        worker_redirect_stdouts=False,
        web_enabled=False,
    )


def _record(message: Any) -> _Record:
    timestamp_ms = int((message.timestamp or 0) * 1000)  # Faust keeps seconds
    return _Record(message.topic, message.partition, message.offset, timestamp_ms, message.key, message.value)


def run_scorer(
    config: ScorerConfig,
    connection: KafkaConnection,
    plan: TopicPlan,
    metrics: ScorerMetrics,
    device: torch.device,
    stop: threading.Event,
) -> bool:
    """Run one scorer until `stop`; False when it gave up and should be restarted.

    When Kafka does not let go at the end, this ends the process: threads of the client library wait for a broker that
    is gone and would keep it. Everything of ours is closed by then.
    """
    torch.set_num_threads(config.torch_threads)

    async def work() -> bool:
        scorer = Scorer(config, connection, plan, metrics, device)
        spare_the_collector()
        try:
            healthy = await scorer.run(stop)
        except BaseException:
            log.exception("the scorer failed")
            healthy = False
        left = await scorer.leave()
        scorer.close(broker_answers=left)
        if not left:
            logging.shutdown()
            os._exit(0 if healthy else 1)
        return healthy

    return asyncio.run(work())
