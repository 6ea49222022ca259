"""Checks before the routes of the HTTP server: host, rate, token and size.

    Host -> rate of this client -> bearer token -> size of the body -> routes

Invariants:
- Without a token only requests for a loopback name or address are served, so a web page whose name
  resolves to this machine (DNS rebinding) is rejected.
- Tokens are compared in constant time, and failed attempts count toward the rate limit.
- State about clients is bounded, and the size of a body is checked before it is parsed.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from amberdb._shared.local_http import has_token, is_loopback, name_of
from amberdb.server.clients import Clients
from amberdb.server.options import ServerOptions
from amberdb.server.problems import problem

CLIENTS_MAX: Final = 10_000
BODY_S: Final = 30.0
"""The longest time that a client may take to send a body."""
HEALTH: Final = "/health"


@final
class Guard:
    """The outermost ASGI layer."""

    def __init__(
        self,
        app: ASGIApp,
        options: ServerOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._options = options
        self._clients = Clients(options.trusted_proxies)
        self._rates = Rates(options.requests_per_s, options.burst, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            try:
                async with asyncio.timeout(BODY_S):
                    body = await self._body(receive)
            except TimeoutError:
                refusal = problem(408, f"the body took over {BODY_S:.0f} s", "BodyTimeout")
            else:
                if body is None:
                    refusal = self._too_large()
                else:
                    await self._app(scope, _replayed(body, receive), send)
                    return
        await refusal(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """The response to a request that is rejected by its headers; None for the others."""
        headers, token = Headers(scope=scope), self._options.token
        if token is None and not is_loopback(name_of(headers.get("host", ""))):
            return problem(421, "without a token only localhost is served: set a token", "NotLocal")
        wait_s = self._rates.take(self._clients.address(scope, headers))
        if wait_s:
            return problem(
                429,
                f"more than {self._options.requests_per_s:g} requests per second: wait",
                "TooManyRequests",
                {"Retry-After": str(max(1, round(wait_s)))},
            )
        given = headers.get("authorization", "")
        if token is not None and scope["path"] != HEALTH and not has_token(given, token):
            return problem(
                401,
                "send the header `Authorization: Bearer <token>` with the server's token",
                "NotAuthorized",
                {"WWW-Authenticate": "Bearer"},
            )
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return problem(400, "Content-Length must be a number of bytes", "BadLength")
        return self._too_large() if int(length[:19]) > self._options.body_bytes_max else None

    async def _body(self, receive: Receive) -> bytes | None:
        """The body; None when it is too large, incomplete when the client disconnected."""
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._options.body_bytes_max:
                return None
            if message["type"] != "http.request" or not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> Response:
        limit = self._options.body_bytes_max
        return problem(
            413, f"the body is larger than {limit} bytes: send less at once", "BodyTooLarge"
        )


@final
class Rates:
    """A token bucket for each client: `burst` tokens at most, refilled at `per_s`."""

    def __init__(self, per_s: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """(tokens left, time) by client, the least recently seen first."""

    def take(self, client: str) -> float:
        """Takes a token: 0 when there was one, else the seconds until the next."""
        now = self._clock()
        left, since = self._clients.pop(client, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._clients[client] = (left if wait_s else left - 1, now)
        if len(self._clients) > CLIENTS_MAX:
            self._clients.popitem(last=False)
        return wait_s


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A receive() that returns the body in one message, and then the messages after it."""
    is_sent = False

    async def replayed() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
