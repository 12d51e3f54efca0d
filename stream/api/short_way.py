"""Answers the most frequent request, for the list of a user, without the layers of the framework.

For such a request FastAPI takes longer than finding the list does. A request in the usual form is answered here, just
as the route of `stream.api.app` would answer it. All other requests are left to that route: only the route knows all
parameters, refuses wrong ones, and is documented. `tests/stream/api/test_short_way.py` checks that both answer alike.
"""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from stream.api.access import Access
from stream.api.guard import CALLER
from stream.api.problems import problem_response
from stream.api.service import Reads

__all__ = ["ShortWay"]

_PATH = re.compile(r"/v1/users/([A-Za-z0-9._~:@-]{1,512})/recommendations")  # an id without an escape
_QUERY = re.compile(rb"(?:limit=([1-9]\d{0,2})|as_of=(\d{1,15}))?")
_UNUSUAL = frozenset((b"origin", b"content-length", b"transfer-encoding"))


class ShortWay:
    """`app` answers the requests that are not answered here. `route` names the request in metrics and in the log."""

    def __init__(self, app: ASGIApp, access: Access, reads: Reads, route: BaseRoute) -> None:
        self._app, self._access, self._reads, self._route = app, access, reads, route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        query = _QUERY.fullmatch(scope["query_string"]) if path is not None else None
        if path is None or query is None or any(name in _UNUSUAL for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        scope["route"] = self._route
        limit, as_of = (None if value is None else int(value) for value in query.groups())
        try:
            scope[CALLER] = self._access.check(request, "read").name
            answer = await self._reads.recommendations(request, path[1], limit, (), as_of, 0)
        except HTTPException as error:
            answer = problem_response(error.status_code, str(error.detail), error.headers)
        await answer(scope, receive, send)
