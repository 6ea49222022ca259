"""Checks before the requests of streamable HTTP: Host, Origin and bearer token.

Invariants:
- Only requests for a loopback name or address are answered, and a page of a browser is answered
  only if its origin is one: a name that resolves to this machine (DNS rebinding) is rejected.
- Tokens are compared in constant time, before anything of the request is read.
"""

from typing import final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from amberdb._shared.local_http import has_token, is_loopback, name_of


@final
class Guard:
    """The outermost ASGI layer."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """The response to a request that is rejected; None for the others."""
        headers = Headers(scope=scope)
        if not is_loopback(name_of(headers.get("host", ""))):
            return PlainTextResponse("only localhost is served", 421)
        origin = headers.get("origin")
        if origin is not None and not is_loopback(_origin_name(origin)):
            return PlainTextResponse("no page of another host is served", 403)
        if not has_token(headers.get("authorization", ""), self._token):
            return PlainTextResponse(
                "send the header `Authorization: Bearer <token>` with the server's token",
                401,
                {"WWW-Authenticate": "Bearer"},
            )
        return None


def _origin_name(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""
