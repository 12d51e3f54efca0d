"""Which callers are answered, and how often: those with a token and its scopes; without tokens, only this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from stream.api.config import ApiConfig
from stream.api.problems import Refusal
from stream.api.tokens import Scope, Tokens

__all__ = ["Access", "Caller"]

_MOST_CALLERS = 10_000  # callers whose rate is remembered
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")
_PROXIED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True)
class Caller:
    name: str  # of the token; "local" without one


class _Rate:
    """Allows `per_second` requests on average; the requests of one second may come at once."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._per_second, self._most, self._clock = per_second, max(per_second, 1.0), clock
        self._left: dict[str, tuple[float, float]] = {}  # by caller: what was left, and when

    def take(self, caller: str) -> float:
        """Count a request. Returns 0 when it is allowed, else the seconds until the next one is."""
        now = self._clock()
        left, at = self._left.pop(caller, (self._most, now))
        left = min(left + (now - at) * self._per_second, self._most)
        wait = 0.0 if left >= 1 else (1 - left) / self._per_second
        if len(self._left) >= _MOST_CALLERS:  # forget the caller that has not called for longest
            del self._left[next(iter(self._left))]
        self._left[caller] = (left if wait else left - 1, now)
        return wait


class Access:
    """Checks a request before it is answered. One event loop calls it."""

    def __init__(self, config: ApiConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens = None if config.tokens_file is None else Tokens(config.tokens_file)
        self._rate = _Rate(config.requests_per_second, clock)

    def check(self, request: Request, scope: Scope) -> Caller:
        """The caller of a request. Raises `Refusal`."""
        if self._tokens is None:
            self._check_local(request)
            address = request.client.host if request.client else "local"
            self._check_rate(address)
            return Caller("local")
        given = request.headers.getlist("authorization")
        if len(given) > 1:
            raise Refusal(400, "more than one Authorization header")
        kind, _, secret = (given[0] if given else "").partition(" ")
        token = self._tokens.find(secret.strip()) if kind.lower() == "bearer" else None
        if token is None:
            self._check_rate(f"without a token {request.client.host if request.client else ''}")
            what = "this token is not known" if given else "a bearer token is needed"
            raise Refusal(401, what, {"www-authenticate": "Bearer"})
        self._check_rate(token.name)
        if not token.allows(scope):
            raise Refusal(
                403, f"the token {token.name} may not {scope}", {"www-authenticate": f'Bearer scope="{scope}"'}
            )
        return Caller(token.name)

    def _check_local(self, request: Request) -> None:
        """Without tokens only programs of this machine are served. Pages in a browser that reach this address by
        another host name (DNS rebinding) are refused, and so are requests through a proxy, which may come from
        anywhere."""
        host = request.headers.get("host", "")
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if name.lower() not in _LOCAL_NAMES:
            raise Refusal(403, "without tokens only requests to localhost are answered: give the API a --tokens-file")
        if any(header in request.headers for header in _PROXIED):
            raise Refusal(403, "the request came through a proxy, which needs tokens: give the API a --tokens-file")

    def _check_rate(self, caller: str) -> None:
        wait = self._rate.take(caller)
        if wait:
            raise Refusal(429, "too many requests", {"retry-after": f"{max(1, round(wait))}"})
