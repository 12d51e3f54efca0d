"""The scorer process: it reads refreshes and publishes ranked lists, by a Faust stream (`refresh_stream`)."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from model.rerank.counts import CountsConfig
from ops.labels import RejectionReason
from ops.metrics import ScorerMetrics
from stream.clients.admin import check_group_right
from stream.clients.connection import KafkaConnection
from stream.clients.faust_records import deliver_eagerly
from stream.clients.names import NameTaken
from stream.clients.static_member import StaticName
from stream.health import Health
from stream.pilots.topic import PilotSender
from stream.process import REFUSED, end_process, tune_gc
from stream.scorer.config import ScorerConfig, settings_digest
from stream.scorer.counts_file import CountsFile
from stream.scorer.faust_app import scoring_app
from stream.scorer.journal import Journal
from stream.scorer.liveness import Liveness
from stream.scorer.model_loader import ModelLoader
from stream.scorer.models import Models
from stream.scorer.pilot_lists import PilotIntake
from stream.scorer.popularity_file import PopularityFile
from stream.scorer.publisher import Publisher
from stream.scorer.refresh_stream import RefreshStream
from stream.scorer.republishing import Republishing
from stream.scorer.scoring import Scoring
from stream.scorer.scoring_thread import Keeping, ScoringThread
from stream.scorer.shown_lists import ShownLists
from stream.scorer.take_over import TakeOver
from stream.wire.examples_topic import ExampleSender
from stream.wire.item_follower import ItemFollower
from stream.wire.items import ItemRecord
from stream.wire.layout import ready_topics
from stream.wire.topics import TopicPlan
from stream.wire.windows_topic import WindowSender

__all__ = ["Scorer", "run_scorer"]

log = logging.getLogger(__name__)

_HOUSEKEEPING_SECONDS = 5.0
_TURN_SECONDS = 0.5  # how often the scorer checks whether an item's time began or ended
_FIRST_MODELS_SECONDS = 15.0  # longest wait at the start for the models announced before it
_LEAVE_SECONDS = 4.0  # for Faust to commit and leave the group


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
        ready_topics(connection, plan)
        check_group_right(connection, plan.prefix + config.group)
        lists = ShownLists(config.state_dir / "shown", config.store)
        self._keeping = keeping = _keeping(config, connection, plan)
        self._scoring = _scoring(config, lists, metrics, keeping)
        self._loader = ModelLoader(
            connection, plan.models, device, metrics, self._swap, config.lists.chosen_from, config.lists.candidates
        )
        self._thread = ScoringThread(self._scoring, lists, keeping, metrics, device, self._loader.looked)
        pilots = PilotIntake(self._scoring.pilots, keeping.pilots)
        self._items = _item_follower(connection, plan, metrics, self._items_changed, pilots)
        self._loop = asyncio.get_running_loop()
        self._name = StaticName(connection, plan.prefix + config.group, config.worker)
        self._app = scoring_app(config, connection, plan)
        self._liveness = Liveness(
            self._app, plan.refreshes, metrics, lambda: self._take_over.joined and self._stream.idle
        )
        publisher, progress = Publisher(self._app, plan), self._liveness.progress
        self._stream = RefreshStream(self._app, config.batch_refreshes, self._thread, publisher, metrics, progress)
        self._app.agent(self._app.topic(plan.refreshes), concurrency=1, name="score")(self._stream.score)
        self._app.on_partitions_assigned.connect(self._assigned)
        self._republishing = Republishing(
            self._stream, self._thread, publisher, lists, self._scoring.catalogue, metrics
        )
        self._take_over = TakeOver(config, connection, plan, lists, self._stream, self._republishing, progress)

    def _swap(self, models: Models) -> None:
        self._scoring.models = models  # one assignment: a batch in flight keeps the set it started with

    def _items_changed(self, changes: Mapping[str, ItemRecord | None]) -> None:
        """Called on another thread. Waits until the changes are applied, so that many changes do not pile up."""
        asyncio.run_coroutine_threadsafe(
            self._republishing.change_items(changes, self._items.next_offset), self._loop
        ).result()

    async def _assigned(self, app: Any, assigned: set[Any], **options: Any) -> None:
        partitions = {tp.partition for tp in assigned}
        log.info("partitions assigned: %s", sorted(partitions))
        self._metrics.rebalances.inc()
        self._take_over.assigned(partitions)
        await self._thread.call(self._thread.assigned, partitions)

    async def run(self, stop: threading.Event, health: Health) -> bool:
        """Score until `stop`; False when a batch failed, there was no progress for too long, or Faust gave up. Raises
        `NameTaken`."""
        await self._start()
        watch = asyncio.create_task(self._liveness.watch())
        kept = turned = time.monotonic()
        stalled = False
        try:
            while not (stop.is_set() or stalled or self._stream.failed or self._app.should_stop):
                await asyncio.sleep(0.1)
                health.turned(self._take_over.waits_for or self._scoring.waits_for)
                stalled = self._liveness.stalled_seconds > self._config.stall_seconds
                if stalled:
                    log.error("no progress for %.0f s, giving up", self._config.stall_seconds)
                    self._stream.failed = True
                if time.monotonic() - turned > _TURN_SECONDS:
                    turned = time.monotonic()
                    await self._republishing.change_items({})  # items start and end without a message
                self._name.check()
                if time.monotonic() - kept > _HOUSEKEEPING_SECONDS:
                    kept = time.monotonic()
                    await self._thread.call(self._thread.keep_house)
        finally:
            watch.cancel()
        return stop.is_set() and not self._stream.failed

    async def _start(self) -> None:
        self._loader.start()
        self._take_over.start()
        await self._loop.run_in_executor(None, self._loader.looked.wait, _FIRST_MODELS_SECONDS)
        await self._loop.run_in_executor(None, self._items.start)
        self._app.finalize()
        deliver_eagerly(self._app.consumer)
        self._name.watch(self._app.consumer)
        starting = asyncio.create_task(self._app.start())
        deadline = time.monotonic() + self._config.stall_seconds
        while not (await asyncio.wait([starting], timeout=0.1))[0]:
            self._name.check()  # another worker that joined at the same moment may have taken the name
            if time.monotonic() > deadline:
                raise TimeoutError(f"no Kafka for {self._config.stall_seconds:.0f} s")
        await starting
        self._liveness.begin()
        log.info("scorer reads %s", self._plan.refreshes)

    async def leave(self, give_name_back: bool) -> bool:
        """Finish the current batch, commit, leave the group; False when Kafka did not answer in time. The group keeps
        the partitions of a named worker for it, unless the worker gives the name back."""
        self._take_over.stop()
        leaving = asyncio.create_task(self._leave(give_name_back))
        # The task is waited for but never cancelled: Faust ignores the cancellation of its own stop and would wait on.
        await asyncio.wait([leaving], timeout=_LEAVE_SECONDS)
        answered = leaving.done() and not leaving.cancelled()
        error = leaving.exception() if answered else TimeoutError(f"Kafka did not answer in {_LEAVE_SECONDS} s")
        if error is not None:
            log.warning("leaving without a last commit, the next scorer repeats some lists: %r", error)
        return error is None

    async def _leave(self, give_name_back: bool) -> None:
        await self._stream.end()
        # `App.stop` cancels its own last commit, so commit before it. If a commit is under way, the first call only
        # waits for that one; the second commits the rest.
        await self._app.consumer.commit()
        await self._app.consumer.commit()
        await self._app.stop()
        if give_name_back:
            await self._loop.run_in_executor(None, self._name.leave)

    def close(self, broker_answers: bool) -> None:
        """Store what is kept over a restart. Clients are closed only while a broker answers: each would wait for it."""
        self._take_over.close(broker_answers)
        self._thread.close()
        if broker_answers:
            self._keeping.windows.close()
            self._keeping.examples.close()
            self._keeping.pilots.close()
            self._loader.close()
            self._items.close()


def _keeping(config: ScorerConfig, connection: KafkaConnection, plan: TopicPlan) -> Keeping:
    return Keeping(
        PopularityFile(config.state_dir),
        CountsFile(config.state_dir),
        WindowSender(connection, plan.monitor_windows),
        ExampleSender(connection, plan.examples),
        PilotSender(connection, plan.pilots),
    )


def _scoring(config: ScorerConfig, lists: ShownLists, metrics: ScorerMetrics, keeping: Keeping) -> Scoring:
    settings, half_life_ms = settings_digest(config.lists), config.lists.popularity_half_life_ms
    return Scoring(
        config.lists,
        lists,
        metrics,
        saved_popularity=keeping.popularity.load(),
        saved_counts=keeping.counts.load(CountsConfig()),
        journal=Journal(config.state_dir / "journal", settings, config.journal_hours, half_life_ms),
    )


def _item_follower(
    connection: KafkaConnection,
    plan: TopicPlan,
    metrics: ScorerMetrics,
    changed: Callable[[Mapping[str, ItemRecord | None]], None],
    pilots: PilotIntake,
) -> ItemFollower:
    def rejected(reason: RejectionReason) -> None:
        metrics.items_rejected[reason].inc()

    return ItemFollower(connection, plan.items, rejected, changed, {plan.pilots: pilots})


def run_scorer(
    config: ScorerConfig,
    connection: KafkaConnection,
    plan: TopicPlan,
    metrics: ScorerMetrics,
    device: torch.device,
    stop: threading.Event,
    health: Health | None = None,
) -> bool:
    """Run one scorer until `stop`; False when it gave up and should be restarted.

    When Kafka does not answer at the end, or another process runs under the same name, this function ends the process:
    threads of the client library wait for brokers and would keep it alive. All files of the scorer are closed by then.
    """
    torch.set_num_threads(config.torch_threads)

    async def work() -> bool:
        scorer = Scorer(config, connection, plan, metrics, device)
        tune_gc()
        healthy, refused = False, None
        try:
            healthy = await scorer.run(stop, health or Health())
        except NameTaken as error:
            refused = error
        except BaseException:
            log.exception("the scorer failed")
        # A worker that fails keeps its name, and with it its partitions: it is started again. A worker whose name was
        # taken has no partitions.
        left = await scorer.leave(give_name_back=healthy)
        scorer.close(broker_answers=left)
        if refused is not None:
            log.error("%s", refused)
            end_process(REFUSED)
        if not left:
            end_process(0 if healthy else 1)
        return healthy

    return asyncio.run(work())
