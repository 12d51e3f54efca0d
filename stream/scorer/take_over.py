"""Takes over assigned partitions: a thread reads their last lists, and then they are answered."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Mapping

from stream.clients.connection import KafkaConnection
from stream.scorer.config import ScorerConfig
from stream.scorer.list_follower import FollowerEvents, ListFollower
from stream.scorer.refresh_stream import RefreshStream
from stream.scorer.republishing import Republishing
from stream.scorer.shown_lists import LastList, ShownLists
from stream.wire.topics import TopicPlan

__all__ = ["TakeOver"]

log = logging.getLogger(__name__)

_PUBLISH_SECONDS = 30.0  # longest wait for lists that are published again
_CLOSE_SECONDS = 2.0


class TakeOver:
    """Make it inside the event loop of `stream`. `progressed` may be called on another thread."""

    def __init__(
        self,
        config: ScorerConfig,
        connection: KafkaConnection,
        plan: TopicPlan,
        lists: ShownLists,
        stream: RefreshStream,
        republishing: Republishing,
        progressed: Callable[[], None],
    ) -> None:
        self._stream, self._republishing = stream, republishing
        self._loop = asyncio.get_running_loop()
        self._assignment = 0  # number of the last one
        self._partitions: frozenset[int] = frozenset()  # of that one
        self._renewing: set[asyncio.Task[None]] = set()
        events = FollowerEvents(self._caught_up, progressed, self._publish_again)
        self._follower = ListFollower(connection, plan, lists, events, config.former_seconds)
        self._follows = threading.Thread(target=self._run, name="last-lists", daemon=True)
        self._stop = threading.Event()

    @property
    def joined(self) -> bool:
        """Whether the group has made an assignment to this worker, even one without partitions."""
        return self._assignment > 0

    @property
    def waits_for(self) -> str:
        """What keeps this worker from answering its partitions; empty when nothing does, or when it has none."""
        if not self.joined:
            return "the group has not shared out its partitions"
        waiting = sorted(self._partitions - self._stream.answered)
        return f"the last lists are being read: partitions {', '.join(map(str, waiting))}" if waiting else ""

    def start(self) -> None:
        self._follows.start()

    def assigned(self, partitions: Iterable[int]) -> None:
        """These partitions are owned from now on, and no others. Called before their first refresh arrives."""
        partitions = frozenset(partitions)
        self._stream.hold(partitions)
        self._partitions = partitions
        self._assignment = self._follower.follow(partitions)

    def stop(self) -> None:
        """Tell the thread to end."""
        self._stop.set()

    def close(self, broker_answers: bool) -> None:
        """Call this before the last lists are closed. It waits for the thread only when a broker answers: otherwise the
        thread may be waiting for a broker that is gone."""
        self._stop.set()
        if broker_answers and self._follows.is_alive():
            self._follows.join(_CLOSE_SECONDS)

    # -- on the follower's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._follower.run(self._stop)
        except Exception:
            if not self._stop.is_set():  # else the lists were closed under it
                log.exception("following the last lists failed")
                self._stream.failed = True

    def _caught_up(self, assignment: int, number: int) -> None:
        self._loop.call_soon_threadsafe(self._release, assignment, number)

    def _publish_again(self, number: int, newer: Mapping[bytes, LastList]) -> None:
        published = asyncio.run_coroutine_threadsafe(self._republishing.publish_again(number, newer), self._loop)
        published.result(_PUBLISH_SECONDS)

    # -- on the event loop ---------------------------------------------------------------------------------------------

    def _release(self, assignment: int, number: int) -> None:
        if assignment == self._assignment:  # else the partition has been assigned again since, or moved away
            self._stream.release(number)
            renewing = asyncio.create_task(self._renew(number))
            self._renewing.add(renewing)
            renewing.add_done_callback(self._renewing.discard)

    async def _renew(self, number: int) -> None:
        try:
            await self._republishing.answered(number)
        except Exception:
            log.exception("renewing lists failed")
            self._stream.failed = True
