"""Checks before the requests of streamable HTTP: Host, Origin and bearer token.

Invariants:
- Only requests for a loopback name or address are answered, and a page of a browser is answered
  only if its origin is one: a name that resolves to this machine (DNS rebinding) is rejected.
- Tokens are compared in constant time, before anything of the request is read.
"""

import hmac
from typing import final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from amberdb.mcp.options import is_loopback


@final
class Guard:
    """The outermost ASGI layer."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """The response to a request that is rejected; None for the others."""
        headers = Headers(scope=scope)
        if not is_loopback(_name(headers.get("host", ""))):
            return PlainTextResponse("only localhost is served", 421)
        origin = headers.get("origin")
        if origin is not None and not is_loopback(_origin_name(origin)):
            return PlainTextResponse("no page of another host is served", 403)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        is_same = hmac.compare_digest(given.strip().encode(), self._token)
        if not is_same or scheme.lower() != "bearer":
            return PlainTextResponse(
                "send the header `Authorization: Bearer <token>` with the server's token",
                401,
                {"WWW-Authenticate": "Bearer"},
            )
        return None


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _origin_name(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
