"""Forwards requests to the instance that holds the user's partition."""

from __future__ import annotations

import aiohttp
from starlette.requests import Request
from starlette.responses import Response
from yarl import URL

from stream.api.problems import Unavailable

__all__ = ["FORWARDED", "Forwarder"]

FORWARDED = "x-freshet-forwarded"  # a request that has it is answered or refused, never passed on again

_KEPT = ("content-type", "retry-after")  # headers of the answer


class Forwarder:
    """A pool of connections to the other instances. The caller's token is sent along, so that the other instance checks
    it, too."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: the longest time that an answer may take."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=0.5),
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(limit=200, keepalive_timeout=30),
            auto_decompress=False,
        )

    async def get(self, address: str, request: Request) -> Response:
        """The answer of the instance at `address`. Raises `Unavailable` when there is none."""
        url = URL(f"{address}{request.url.path}?{request.url.query}", encoded=True)
        headers = {FORWARDED: "1"}
        if "authorization" in request.headers:
            headers["authorization"] = request.headers["authorization"]
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"the instance that holds this user does not answer ({type(error).__name__})") from None
        return Response(body, answer.status, {name: answer.headers[name] for name in _KEPT if name in answer.headers})

    async def close(self) -> None:
        await self._session.close()
