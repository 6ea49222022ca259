"""Checks before every page: the Host, the origin, and the token of the printed URL.

    Host -> Origin, Sec-Fetch-Site -> token in the URL: a cookie and the same page without it
                                   -> cookie -> size of the body -> pages

Invariants:
- Only requests for a loopback name or address are answered: a name that resolves to this machine
  (DNS rebinding) is refused. So is a request that a page of another origin makes, and a POST that
  does not say that it is of these pages, whatever cookie it has.
- Tokens are compared in constant time. The cookie cannot be read by a script and is sent with
  requests of these pages alone.
- Every response, a refusal too, has the security headers. No script, style or image of another
  place is loaded, and none that stands in the page itself.
"""

import hmac
from typing import Final, final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from amberdb._shared.local_http import is_loopback, name_of
from amberdb.inspector.web.languages import preferred, text_of
from amberdb.inspector.web.options import BODY_BYTES_MAX

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # With `no-referrer` a browser would send `Origin: null` with the forms of these pages.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
COOKIE: Final = "amberdb-ui"
_OWN_SITES: Final = ("same-origin", "none")
"""Of Sec-Fetch-Site; none: the person has typed the URL, or opened it from a terminal."""


@final
class Guard:
    """The outermost ASGI layer."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                sent.update(SECURITY_HEADERS)
                is_static = scope["path"].startswith("/static/")
                sent.setdefault("Cache-Control", "no-cache" if is_static else "no-store")
            await send(message)

        answer = self._answer(scope, headers)
        await (answer or self._app)(scope, receive, secured)

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        """The response to a request that goes no further; None for the others."""
        host = headers.get("host", "")
        language = preferred(headers.get("accept-language", ""))
        if not is_loopback(name_of(host)):
            return _refusal(421, language, "guard.host")
        origin = headers.get("origin")
        is_own = origin == f"http://{host}"
        if (origin is not None or scope["method"] not in ("GET", "HEAD")) and not is_own:
            return _refusal(403, language, "guard.origin")
        if headers.get("sec-fetch-site", "none") not in _OWN_SITES:
            return _refusal(403, language, "guard.origin")
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and self._is_token(given):
            return self._entered(scope, host, query)
        cookies = cookie_parser(headers.get("cookie", ""))
        if not self._is_token(cookies.get(_cookie_name(host), "")):
            return _refusal(401, language, "guard.token")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:19]) > BODY_BYTES_MAX:
            return _refusal(413, language, "guard.size")
        return None

    def _entered(self, scope: Scope, host: str, query: list[tuple[str, str]]) -> Response:
        """The same page, without the token in its URL, and the cookie."""
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        # One slash in front, or `//host` would be another host's URL.
        path = "/" + str(scope["path"]).lstrip("/\\")
        answer = RedirectResponse(f"{path}?{rest}" if rest else path, 303)
        answer.set_cookie(
            _cookie_name(host), self._token, httponly=True, samesite="strict", path="/"
        )
        return answer

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def _cookie_name(host: str) -> str:
    """Cookies of a host are sent to each of its ports: two inspectors have two cookies."""
    port = host.rpartition("]")[2].rpartition(":")[2]
    return f"{COOKIE}-{port}" if port.isdigit() else COOKIE


def _refusal(status: int, language: str, key: str) -> Response:
    return PlainTextResponse(text_of(language, key), status)
