"""Wraps every request: keeps its path as it was sent, logs a line, counts it, and answers 500 to a fault of the API."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ops.metrics import ApiMetrics
from stream.api.access_log import AccessLine
from stream.api.problems import problem_response

__all__ = ["CALLER", "Guard"]

log = logging.getLogger(__name__)

CALLER = "freshet.caller"  # in a request's scope: the name of its token

_CLIENT_LEFT = 499  # logged, as nginx does, when the client left before the answer
_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class Guard:
    def __init__(self, app: ASGIApp, metrics: ApiMetrics, write: Callable[[AccessLine], None] | None) -> None:
        self._app, self._metrics, self._write = app, metrics, write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Segments are decoded one by one where they are used. So an encoded slash in a user's id does not begin a new
        # segment, and encoded dots do not change the path.
        scope["path"] = scope["raw_path"].decode("ascii", errors="replace")
        began, status, size = time.perf_counter(), 0, 0

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            log.exception("a request failed")
            if not status:
                await problem_response(500, "a fault of this service; it is logged")(scope, receive, sending)
        finally:
            self._note(scope, status or _CLIENT_LEFT, size, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "name", "other")
        self._metrics.request(route, status, seconds)
        if self._write is not None:
            client = scope.get("client")
            self._write(
                AccessLine(
                    round(time.time(), 3),
                    client[0] if client else "",
                    scope.get(CALLER, ""),
                    scope["method"],
                    route,
                    status,
                    size,
                    round(1000 * seconds, 2),
                )
            )
