"""The pages of `amberdb ui` as an ASGI application, and the server that shows them.

    app = application(db, options)                    for a test, or your own ASGI server
    await serve("memory.amber", InspectorOptions())   the command line

Invariants:
- The database is open read-only unless `write` is asked for: beside a process that writes, which is
  neither stopped nor slowed down. With `write` it is shared (amberdb.connect).
- The port is bound on a loopback address before the database is opened; at SIGTERM and SIGINT the
  streams end, and the database is closed.
"""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

import amberdb
from amberdb import Database
from amberdb._connect import connect_or_open, is_url
from amberdb._shared.local_http import ended_by_sigterm
from amberdb.inspector import Checking
from amberdb.inspector.web import activity, browse, care, changing
from amberdb.inspector.web.guard import Guard
from amberdb.inspector.web.languages import LANGUAGES
from amberdb.inspector.web.options import InspectorOptions
from amberdb.inspector.web.visit import LANGUAGE_COOKIE, THEME_COOKIE, THEMES, Visit, page, prepare

GRACE_S: Final = 3
"""Time for running requests to end after a signal."""
_YEAR_S: Final = 31_536_000


def application(
    db: Database, options: InspectorOptions, *, is_closing: Callable[[], bool] = lambda: False
) -> ASGIApp:
    """The pages of an open database, behind their guard. Streams end when `is_closing` says so."""
    routes: list[Route | Mount] = [
        Route("/", page(browse.collections)),
        Route("/documents", page(browse.documents)),
        Route("/document", page(browse.document)),
        Route("/search", page(browse.search)),
        Route("/vectors", page(browse.vectors)),
        Route("/vectors/points", page(browse.points)),
        Route("/export", page(browse.export)),
        Route("/changes", page(activity.changes)),
        Route("/changes/stream", activity.stream),
        Route("/activity", page(activity.activity)),
        Route("/backups", page(care.backups)),
        Route("/check", page(care.check)),
        Route("/check", page(care.start_check), methods=["POST"]),
        Route("/settings", page(settings), methods=["POST"]),
        Mount("/static", StaticFiles(packages=[("amberdb.inspector.web", "static")])),
    ]
    if options.write:
        routes += [
            Route("/document/edit", page(changing.edit), methods=["POST"]),
            Route("/document/delete", page(changing.delete), methods=["POST"]),
            Route("/erase", page(changing.erase_form)),
            Route("/erase", page(changing.erase), methods=["POST"]),
        ]
    prepare()
    app = Starlette(routes=routes, exception_handlers={404: _not_found, 500: _failed})
    app.state.db = db
    app.state.options = options
    app.state.checking = Checking(db)
    app.state.streams = 0
    app.state.is_closing = is_closing
    return Guard(app, options.token)


def settings(visit: Visit) -> Response:
    """Keeps the language or the theme in a cookie, and shows the page again."""
    back = visit.given("back")
    answer = RedirectResponse(back if _is_own(back) else "/", 303)
    for name, cookie, known in (
        ("language", LANGUAGE_COOKIE, LANGUAGES),
        ("theme", THEME_COOKIE, THEMES),
    ):
        if (chosen := visit.given(name)) in known:
            answer.set_cookie(cookie, chosen, max_age=_YEAR_S, samesite="strict", httponly=True)
    return answer


async def serve(
    path: str,
    options: InspectorOptions | None = None,
    *,
    ready: Callable[[str], object] = lambda url: None,
) -> None:
    """Shows a database until a signal ends it. `ready` is called with the URL, which has the token.

        asyncio.run(serve("memory.amber", InspectorOptions(port=8080), ready=print))

    Raises what open() raises, and OSError when the port is in use."""
    options = options or InspectorOptions()
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with (
        socket.create_server((options.host, options.port), family=family) as listening,
        await asyncio.to_thread(_opened, path, options) as db,
    ):
        await _serve(db, options, listening, ready)


# -- inside --------------------------------------------------------------------------------------


def _opened(path: str, options: InspectorOptions) -> Database:
    if options.write or is_url(path):
        return connect_or_open(path, create=False, background=False)
    return amberdb.open(path, read_only=True, background=False)


async def _serve(
    db: Database,
    options: InspectorOptions,
    listening: socket.socket,
    ready: Callable[[str], object],
) -> None:
    config = uvicorn.Config(
        application(db, options, is_closing=lambda: running.should_exit),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    running = uvicorn.Server(config)
    name = f"[{options.host}]" if ":" in options.host else options.host
    with ended_by_sigterm(running):
        serving = asyncio.create_task(running.serve(sockets=[listening]))
        ready(f"http://{name}:{listening.getsockname()[1]}/?token={options.token}")
        await serving


def _is_own(url: str) -> bool:
    """Whether a URL is one of these pages: a path, and not `//host` or `/\\host`."""
    return url.startswith("/") and url[1:2] not in ("/", "\\")


def _error_page(request: Request, status: int, key: str) -> Response:
    visit = Visit(request, {})
    return visit.page("error.html", status=status, message=visit.text(key), kind="")


async def _not_found(request: Request, _: Any) -> Response:
    return await asyncio.to_thread(partial(_error_page, request, 404, "error.not_found"))


async def _failed(request: Request, _: Any) -> Response:
    return await asyncio.to_thread(partial(_error_page, request, 500, "error.failed"))
