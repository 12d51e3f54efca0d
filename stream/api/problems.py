"""Refusals, as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

__all__ = ["Refusal", "Unavailable", "answer_problems", "problem_response"]


class Refusal(HTTPException):
    """Answers a request with a status and one line that says why."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, dict(headers or {}))


class Unavailable(Refusal):
    """The right answer is not known at the moment; the client should ask again."""

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(503, detail, {"retry-after": f"{retry_after}"})


def problem_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    body = msgspec.json.encode({"title": HTTPStatus(status).phrase, "status": status, "detail": detail})
    return Response(body, status, headers, media_type="application/problem+json")


def answer_problems(app: FastAPI) -> None:
    """Make every refusal of an app a problem of one line."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem_response(error.status_code, str(error.detail), error.headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return problem_response(400, f"{where}: {first['msg']}"[:300])

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
