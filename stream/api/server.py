"""The process: four threads beside an event loop, and its end in order.

    follower     keeps the copies equal to their topics
    item-lists   keeps the copy of the lists that belong to no user
    items        follows the topic `items`, which says what may be listed
    group        learns which partitions are this instance's, and announces them
    event loop   answers

On the first signal the instance says that it is not ready, leaves the group, and goes on answering until others have
taken its partitions over. Then it finishes the requests under way, and ends.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from importlib.metadata import version

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from ops.metrics import ApiMetrics
from stream.api.access import Access
from stream.api.access_log import access_log
from stream.api.app import make_app
from stream.api.config import ApiConfig, ApiConfigError
from stream.api.directory import Directory
from stream.api.events import EventWriter
from stream.api.follower import Follower
from stream.api.forward import Forwarder
from stream.api.guard import Guard
from stream.api.health import Health
from stream.api.item_lists import ItemListCopy
from stream.api.membership import Membership
from stream.api.pages import Pages
from stream.api.partitions import Copies
from stream.api.popular import PopularItems
from stream.api.protocol import BoundedHttp
from stream.api.service import Reads
from stream.api.short_way import ShortWay
from stream.api.waiting import Waiters
from stream.clients.admin import check_group_right
from stream.clients.connection import KafkaConnection
from stream.process import tune_gc
from stream.wire.item_follower import ItemFollower
from stream.wire.items import ItemRecord
from stream.wire.layout import agreed_layout
from stream.wire.topics import TopicPlan, ensure_topics

__all__ = ["Api", "run_api"]

log = logging.getLogger(__name__)

_FINISH_SECONDS = 3.0  # longest time that requests under way are given at the end
_FORWARD_SECONDS = 2.0  # longest time that another instance is given, beyond what a request may wait for its list
_KEEP_ALIVE_SECONDS = 75  # longer than load balancers keep an idle connection, so that they close it, not the API
_MOST_CONNECTIONS = 4096


class _Server(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Capture none: `stream.process` handles the signals of the process."""
        return nullcontext()


class Api:
    """One instance. `run` returns when the instance has ended: True when it was stopped, False when a thread failed."""

    def __init__(self, config: ApiConfig, connection: KafkaConnection, plan: TopicPlan) -> None:
        self._config, self._connection, self._plan = config, connection, plan
        self._failed, self._end = threading.Event(), threading.Event()
        self._resources = ExitStack()
        ensure_topics(connection, plan)
        agreed_layout(connection, plan)
        check_group_right(connection, plan.prefix + config.group)
        self._socket = self._resources.enter_context(_listen(config.host, config.port))
        self.port: int = self._socket.getsockname()[1]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._metrics = ApiMetrics(self._registry)

    def run(self, stop: threading.Event) -> bool:
        with self._resources:
            uvloop.run(self._serve(stop))
        return not self._failed.is_set()

    async def _serve(self, stop: threading.Event) -> None:
        config, connection, plan, metrics = self._config, self._connection, self._plan, self._metrics
        address = config.address(self.port)
        access = Access(config)
        write = self._resources.enter_context(access_log(config.access_log))
        copies = Copies(config.stale_seconds)
        popular = PopularItems(config.popularity_half_life_ms, config.events)
        waiters = Waiters(asyncio.get_running_loop())
        follower = Follower(config, connection, plan, metrics, copies, popular, waiters.tell)
        directory = Directory(connection, plan.api_instances, uuid.uuid4().hex, address)
        membership = Membership(config, connection, plan, metrics, follower, directory)
        events = EventWriter(connection, plan, config.limits)
        self._resources.callback(events.close)
        forwarder = Forwarder(config.wait_seconds + _FORWARD_SECONDS)
        item_lists = ItemListCopy(config.state_dir / "item-lists", connection, plan, config.store)
        pages = Pages(config, item_lists, popular)
        items = await self._items(pages)
        reads = Reads(config, plan, metrics, copies, pages, waiters, directory, forwarder)
        health = Health(lambda: membership.ready and item_lists.level, stop, self._failed)
        app = make_app(config, access, reads, events, metrics, self._registry, health, version("freshet"))
        route = next(route for route in app.routes if getattr(route, "name", "") == "recommendations")
        server = _Server(
            uvicorn.Config(
                Guard(ShortWay(app, access, reads, route), metrics, write),
                http=BoundedHttp,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=int(_FINISH_SECONDS),
                limit_concurrency=_MOST_CONNECTIONS,
            )
        )
        following = self._thread("follower", lambda: follower.run(self._end))
        pages_copy = self._thread("item-lists", lambda: item_lists.run(self._end))
        group = self._thread("group", lambda: membership.run(stop, self._failed))
        log.info("api at http://%s:%d, for other instances at %s", config.host, self.port, address)
        tune_gc()
        serving = asyncio.create_task(server.serve([self._socket]))
        while group.is_alive() and not self._failed.is_set() and not serving.done():
            await asyncio.sleep(0.05)
        server.should_exit = True
        await serving
        await forwarder.close()
        self._end.set()
        await asyncio.gather(*(asyncio.to_thread(thread.join, 5) for thread in (group, following, pages_copy)))
        await asyncio.to_thread(items.close)

    async def _items(self, pages: Pages) -> ItemFollower:
        """Follow the topic `items`; returns when all of it has been read. `pages` is changed on the event loop."""
        loop = asyncio.get_running_loop()

        def changed(changes: Mapping[str, ItemRecord | None]) -> None:
            loop.call_soon_threadsafe(pages.change_items, changes, int(time.time() * 1000))

        rejected = self._metrics.items_rejected
        items = ItemFollower(self._connection, self._plan.items, lambda reason: rejected[reason].inc(), changed)
        await asyncio.to_thread(items.start)
        return items

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException:
                log.exception("the %s thread failed; another process takes over", name)
                self._failed.set()

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ApiConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}. Try another --port") from None


def run_api(config: ApiConfig, connection: KafkaConnection, plan: TopicPlan, stop: threading.Event) -> int:
    """Run one instance until `stop`; returns the exit code. Raises `ApiConfigError` when it cannot begin."""
    return 0 if Api(config, connection, plan).run(stop) else 1
