"""Errors over HTTP as application/problem+json.

Invariants:
- A response does not repeat the request, except values in the message of an error.
- An unexpected error is logged; its text is not sent to the client.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from amberdb import (
    AmberError,
    BusyError,
    ClosedError,
    CollectionError,
    ConflictError,
    DiskFullError,
    DocumentError,
    DocumentTooLargeError,
    DuplicateKeyError,
    EmbeddingError,
    ExtractionError,
    MissingKeyError,
    QueryError,
    StorageError,
    StorageFullError,
    TransactionError,
    TransactionTooLargeError,
)

logger = logging.getLogger("amberdb.server")

MEDIA_TYPE: Final = "application/problem+json"
RETRY_S: Final = "1"

_STATUS: Final[tuple[tuple[type[AmberError], int], ...]] = (
    (MissingKeyError, 404),
    (CollectionError, 409),
    (DuplicateKeyError, 409),
    (ConflictError, 409),
    (DocumentTooLargeError, 413),
    (TransactionTooLargeError, 413),
    (EmbeddingError, 502),
    (ExtractionError, 502),
    (DocumentError, 422),
    (QueryError, 422),
    (DiskFullError, 507),
    (StorageFullError, 507),
    (BusyError, 503),
    (ClosedError, 503),
    (StorageError, 500),
    (TransactionError, 500),
)
"""The first match counts."""


def problem(
    status: int, detail: str, code: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """An error response. `code` is for programs, `detail` for people."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(
        msgspec.json.encode({**body, "code": code, **more}),
        status,
        dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


def handle_errors(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Turns exceptions of the application, which has these routes, into problems."""
    app.add_exception_handler(AmberError, _of_amberdb)
    app.add_exception_handler(RequestValidationError, _of_request)
    app.add_exception_handler(HTTPException, partial(_of_http, routes))
    app.add_exception_handler(Exception, _unexpected)


def _of_amberdb(request: Request, error: Exception) -> Response:
    assert isinstance(error, AmberError)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status >= 500:
        logger.error("%s %s: %s", request.method, request.url.path, error)
    headers = {"Retry-After": RETRY_S} if status == 503 else None
    return problem(status, error.message, type(error).__name__, headers)


def _of_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [{"loc": list(each["loc"]), "msg": each["msg"]} for each in error.errors()]
    fields = ", ".join(".".join(map(str, each["loc"])) for each in errors)
    detail = f"the request is invalid, see /openapi.json: {fields}"
    return problem(422, detail, "RequestError", errors=errors)


def _of_http(routes: Sequence[BaseRoute], request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail, headers = error.detail, error.headers
    if error.status_code == 404:
        detail = f"there is no {request.url.path}: see /openapi.json for all paths"
    elif error.status_code == 405:
        detail = f"{request.method} is not allowed here: see /openapi.json for the methods"
        headers = {"Allow": ", ".join(_allowed(routes, request))}
    return problem(error.status_code, detail, "HttpError", headers)


def _allowed(routes: Sequence[BaseRoute], request: Request) -> list[str]:
    """The methods of all routes with this path; Starlette lists those of the first route only."""
    return sorted(
        method
        for route in routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    )


def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("%s %s", request.method, request.url.path, exc_info=error)
    return problem(500, "an unexpected error: see the log of the server", "InternalError")
