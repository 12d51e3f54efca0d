"""The work of the routes: find the user's list or history here, or at the instance that holds it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from kafka import TopicPartition
from starlette.requests import Request
from starlette.responses import Response

from ops.metrics import ApiMetrics
from state.codec import CodecError
from stream.api.answers import (
    UnusableList,
    history_answer,
    item_list_answer,
    list_answer,
    popular_answer,
    read_list,
)
from stream.api.config import ApiConfig
from stream.api.directory import Directory
from stream.api.forward import FORWARDED, Forwarder
from stream.api.pages import Pages
from stream.api.partitions import Copies, NotHere, NotLevel
from stream.api.problems import Refusal, Unavailable
from stream.api.waiting import Waiters
from stream.wire.partitioning import home_of
from stream.wire.records import Recommendation
from stream.wire.topics import TopicPlan

__all__ = ["Reads"]

log = logging.getLogger(__name__)


class Reads:
    """Answers about users. All methods are called on the event loop."""

    def __init__(
        self,
        config: ApiConfig,
        plan: TopicPlan,
        metrics: ApiMetrics,
        copies: Copies,
        pages: Pages,
        waiters: Waiters,
        directory: Directory,
        forwarder: Forwarder,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._plan, self._metrics, self._clock = config, plan, metrics, clock
        self._copies, self._pages, self._waiters = copies, pages, waiters
        self._directory, self._forwarder = directory, forwarder

    async def recommendations(
        self,
        request: Request,
        user: str,
        limit: int | None,
        exclude: Collection[str],
        as_of: int | None,
        explain: int,
    ) -> Response:
        now_ms = int(self._clock() * 1000)
        if as_of is not None and as_of > now_ms + self._config.limits.ahead_ms:
            raise Refusal(400, f"as_of: {as_of} ms is in the future")
        tp = TopicPartition(self._plan.recommendations, home_of(user.encode(), self._plan.partitions))
        try:
            found = await self._known(tp, user, as_of)
            history = self._copies.read(TopicPartition(self._plan.histories, tp.partition), user.encode())
        except (NotHere, NotLevel) as error:
            return await self._elsewhere(request, tp.partition, error)
        now_ms = int(self._clock() * 1000)
        unlisted = self._pages.unlisted(user, history, now_ms)
        if found is None:
            body = popular_answer(user, self._pages.instead(limit, exclude, unlisted), now_ms)
        else:
            body = list_answer(found, limit, exclude, unlisted, explain, now_ms)
        return Response(body, media_type="application/json")

    def named(self, name: str, limit: int | None, exclude: Collection[str]) -> Response:
        """The answer with a list that belongs to no user; every instance has all of these lists."""
        now_ms = int(self._clock() * 1000)
        found, items = self._pages.named(name, limit, exclude, now_ms)
        return Response(item_list_answer(found, items, now_ms), media_type="application/json")

    async def _known(self, tp: TopicPartition, user: str, as_of: int | None) -> Recommendation | None:
        """The user's list; None when there is none. With `as_of`, waits for a list that knows this event time, and
        raises `Unavailable` when none comes in time."""
        if as_of is None:
            return self._stored(tp, user)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._config.wait_seconds
        with self._waiters.watch(user.encode()) as written:
            while True:
                written.clear()
                found = self._stored(tp, user)
                if found is not None and found.as_of >= as_of:
                    return found
                try:
                    async with asyncio.timeout_at(until):
                        await written.wait()
                except TimeoutError:
                    raise Unavailable(f"no list of this user knows {as_of} yet") from None

    def _stored(self, tp: TopicPartition, user: str) -> Recommendation | None:
        stored = self._copies.read(tp, user.encode())
        if stored is None:
            return None
        try:
            return read_list(user, stored)
        except UnusableList as error:  # somebody else writes to the topic
            self._metrics.api_unusable_lists.inc()
            log.error("%s/%d: %s", tp.topic, tp.partition, error)
            return None

    async def history(self, request: Request, user: str, limit: int | None) -> Response:
        tp = TopicPartition(self._plan.histories, home_of(user.encode(), self._plan.partitions))
        try:
            stored = self._copies.read(tp, user.encode())
        except (NotHere, NotLevel) as error:
            return await self._elsewhere(request, tp.partition, error)
        if stored is None:
            raise Refusal(404, "no interaction of this user is known")
        try:
            return Response(history_answer(user, stored, limit), media_type="application/json")
        except CodecError as error:
            log.error("%s/%d: %s", tp.topic, tp.partition, error)
            raise Unavailable("this user's history is of a version that this instance cannot read", 60) from None

    async def _elsewhere(self, request: Request, partition: int, why: Exception) -> Response:
        address = self._directory.elsewhere(partition)
        if address is None or FORWARDED in request.headers:
            raise Unavailable("this user's list is being brought here" if isinstance(why, NotLevel) else str(why))
        try:
            answer = await self._forwarder.get(address, request)
        except Unavailable:
            self._metrics.api_forwarded["failed"].inc()
            raise
        self._metrics.api_forwarded["answered"].inc()
        return answer
