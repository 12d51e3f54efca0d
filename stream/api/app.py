"""The routes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response

from ops.metrics import ApiMetrics
from stream.api.access import Access
from stream.api.config import ApiConfig
from stream.api.events import EventWriter, Receipt, Unreadable, split_events
from stream.api.guard import CALLER
from stream.api.health import Health
from stream.api.problems import Refusal, Unavailable, answer_problems
from stream.api.service import Reads
from stream.api.shapes import (
    EventIn,
    Forgotten,
    HistoryOut,
    HistoryQuery,
    ItemListOut,
    ItemListQuery,
    ListOut,
    ListQuery,
    ReceiptsOut,
    TrendingQuery,
    problems,
)
from stream.api.tokens import Scope
from stream.wire.item_lists import NEW, TRENDING, similar_to, trending_in

__all__ = ["make_app"]

_ID_CHARACTERS = 512
_BROKEN_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_JSON = "application/json"


async def path_user(
    user: Annotated[
        str,
        Path(description="The user's id.", json_schema_extra={"minLength": 1, "maxLength": _ID_CHARACTERS}),
    ],
) -> str:
    """The user in a path. Like all dependencies this is a coroutine: FastAPI would run a plain function in a thread,
    which takes longer than the rest of a request."""
    return _named("user", user)


async def path_item(
    item: Annotated[
        str,
        Path(description="The item's id.", json_schema_extra={"minLength": 1, "maxLength": _ID_CHARACTERS}),
    ],
) -> str:
    return _named("item", item)


def _named(what: str, segment: str) -> str:
    """The id in a segment of a path. Raises `Refusal`. The segment is still encoded: see `stream.api.guard`."""
    if _BROKEN_ESCAPE.search(segment):
        raise Refusal(400, f"{what}: a % that is no escape")
    try:
        name = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise Refusal(400, f"{what}: not UTF-8") from None
    if not 1 <= len(name) <= _ID_CHARACTERS:
        raise Refusal(400, f"{what}: must have 1 to {_ID_CHARACTERS} characters")
    return name


User = Annotated[str, Depends(path_user)]
Item = Annotated[str, Depends(path_item)]


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The whole body. Raises `Refusal` when it is too large or comes too slowly."""
    declared = request.headers.get("content-length", "0")
    too_large = Refusal(413, f"the body is larger than {most} bytes", {"connection": "close"})
    if not declared.isdigit() or int(declared) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise Refusal(408, f"the body did not arrive in {seconds:.0f} s", {"connection": "close"}) from None
    except ClientDisconnect:
        raise Refusal(400, "the client went away") from None
    return bytes(body)


def _scoped(access: Access, scope: Scope) -> Callable[[Request], Awaitable[None]]:
    async def check(request: Request) -> None:
        request.scope[CALLER] = access.check(request, scope).name

    return check


def make_app(
    config: ApiConfig,
    access: Access,
    reads: Reads,
    events: EventWriter,
    metrics: ApiMetrics,
    registry: CollectorRegistry,
    health: Health,
    version: str,
) -> FastAPI:
    app = FastAPI(
        title="Freshet",
        version=version,
        description="Recommendations that follow every event within milliseconds.",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    answer_problems(app)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type"],
        )
    bearer = Depends(HTTPBearer(auto_error=False, description="A token of the tokens file."))
    may_read, may_write, may_administer = (
        [bearer, Depends(_scoped(access, scope))] for scope in ("read", "write", "admin")
    )

    @app.get(
        "/v1/users/{user}/recommendations",
        name="recommendations",
        summary="The user's newest list",
        response_model=ListOut,
        responses=problems(400, 401, 403, 429, 431, 503),
        dependencies=may_read,
    )
    async def recommendations(request: Request, user: User, query: Annotated[ListQuery, Query()]) -> Response:
        """Of a user of whom no list is known: what is trending, and `known` says so."""
        exclude = frozenset(query.exclude)
        return await reads.recommendations(request, user, query.limit, exclude, query.as_of, query.explain)

    @app.get(
        "/v1/items/{item}/similar",
        name="similar",
        summary="Items like an item",
        response_model=ItemListOut,
        responses=problems(400, 401, 403, 404, 429, 431, 503),
        dependencies=may_read,
    )
    async def similar(item: Item, query: Annotated[ItemListQuery, Query()]) -> Response:
        return reads.named(similar_to(item), query.limit, frozenset(query.exclude))

    @app.get(
        "/v1/trending",
        name="trending",
        summary="What is met most at the moment",
        response_model=ItemListOut,
        responses=problems(400, 401, 403, 404, 429, 431, 503),
        dependencies=may_read,
    )
    async def trending(query: Annotated[TrendingQuery, Query()]) -> Response:
        name = trending_in(query.category) if query.category else TRENDING
        return reads.named(name, query.limit, frozenset(query.exclude))

    @app.get(
        "/v1/new",
        name="new",
        summary="What was met, or starts, the latest",
        response_model=ItemListOut,
        responses=problems(400, 401, 403, 404, 429, 431, 503),
        dependencies=may_read,
    )
    async def new(query: Annotated[ItemListQuery, Query()]) -> Response:
        return reads.named(NEW, query.limit, frozenset(query.exclude))

    @app.get(
        "/v1/users/{user}/history",
        name="history",
        summary="What is known about a user",
        response_model=HistoryOut,
        responses=problems(400, 401, 403, 404, 429, 431, 503),
        dependencies=may_read,
    )
    async def history(request: Request, user: User, query: Annotated[HistoryQuery, Query()]) -> Response:
        return await reads.history(request, user, query.limit)

    @app.delete(
        "/v1/users/{user}",
        name="forget",
        summary="Forget a user",
        status_code=202,
        response_model=Forgotten,
        responses=problems(400, 401, 403, 429, 431, 503),
        dependencies=may_administer,
    )
    async def forget(user: User) -> Response:
        """Everything that the user did until now is erased: the history, the lists, and what the trainer keeps."""
        receipt = await events.forget(user)
        if receipt.failed is not None:
            raise Unavailable(f"Kafka did not take it: {receipt.failed}")
        metrics.api_events["forgotten"].inc()
        body = {"topic": receipt.topic, "partition": receipt.partition, "offset": receipt.offset}
        return Response(msgspec.json.encode(body), 202, media_type=_JSON)

    @app.post(
        "/v1/events",
        name="events",
        summary="Send events",
        status_code=202,
        response_model=ReceiptsOut,
        responses={
            **problems(400, 401, 403, 408, 413, 415, 429, 431),
            422: {"model": ReceiptsOut, "description": "No event could be used."},
            503: {"model": ReceiptsOut, "description": "Kafka did not take all of them: send those again."},
        },
        dependencies=may_write,
        openapi_extra={"requestBody": {"required": True, "content": {_JSON: {"schema": _body_schema(config)}}}},
    )
    async def send_events(request: Request) -> Response:
        """One event or a list of them. Each is written or refused by itself, and its receipt says which.

        Events may be sent again: one that is known already changes nothing."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
            raise Refusal(415, f"the body must be {_JSON}")
        body = await read_body(request, config.body_bytes, config.body_seconds)
        try:
            separate = split_events(body, config.events_per_request)
        except Unreadable as error:
            raise Refusal(400, str(error)) from None
        receipts = await events.write(separate, int(time.time() * 1000))
        return _receipts(receipts, metrics)

    @app.get("/healthz", name="health", summary="Is the process alive?", responses=problems(431, 503))
    async def healthz() -> Response:
        return _state(health.why_dead())

    @app.get("/readyz", name="health", summary="Can it answer for its users?", responses=problems(431, 503))
    async def readyz() -> Response:
        return _state(health.why_unready())

    @app.get(
        "/metrics",
        name="metrics",
        summary="For Prometheus",
        response_class=PlainTextResponse,
        responses=problems(400, 401, 403, 429, 431),
        dependencies=may_read,
    )
    async def show_metrics() -> Response:
        page = await asyncio.to_thread(generate_latest, registry)
        return Response(page, media_type=CONTENT_TYPE_LATEST)

    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Remove from the OpenAPI document the answer 422 that FastAPI would give to an invalid request: here such a
    request gets a problem with status 400."""
    document = app.openapi()
    for operations in document["paths"].values():
        for operation in operations.values():
            schema = operation["responses"].get("422", {}).get("content", {}).get(_JSON, {}).get("schema", {})
            if schema.get("$ref", "").endswith("/HTTPValidationError"):
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _state(why_not: str) -> Response:
    if why_not:
        raise Unavailable(why_not)
    return Response(b'{"status":"ok"}', media_type=_JSON)


def _receipts(receipts: list[Receipt], metrics: ApiMetrics) -> Response:
    refused = sum(receipt.refused is not None for receipt in receipts)
    failed = sum(receipt.failed is not None for receipt in receipts)
    accepted = len(receipts) - refused - failed
    metrics.api_events["accepted"].inc(accepted)
    metrics.api_events["refused"].inc(refused)
    metrics.api_events["failed"].inc(failed)
    body = {"accepted": accepted, "refused": refused, "failed": failed, "receipts": receipts}
    status, headers = (503, {"retry-after": "1"}) if failed else (202 if accepted else 422, None)
    return Response(msgspec.json.encode(body), status, headers, media_type=_JSON)


def _body_schema(config: ApiConfig) -> dict[str, Any]:
    event = EventIn.model_json_schema()
    many = {"type": "array", "items": event, "minItems": 1, "maxItems": config.events_per_request}
    return {"anyOf": [event, many]}
