"""An HTTP server for layered memory and the chat buffer: docs/server.md.

    amberdb serve memory.amber                  the command line
    await serve("memory.amber", ServerOptions())  the same from a program
    app = application(service, options)         for a server of one's own

The extra `amberdb[server]` brings FastAPI and uvicorn; nothing else in the package imports them.

Invariants:
- A port that is taken is told before the database is opened. Who connects while it is being opened
  waits; it is closed after the last answer.
- SIGTERM and SIGINT end it so: no new connections, the requests that run are answered, what is
  pending is on disk.
"""

import asyncio
import signal
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

import amberdb
from amberdb.aio import database
from amberdb.aio.system import keep_flushing, open_chat_buffer, open_memory
from amberdb.chat.schedule import Schedule
from amberdb.chat.sinks import CollectionSink
from amberdb.memory.rules import RuleExtractor
from amberdb.memory.types import Extractor
from amberdb.server.guard import Guard
from amberdb.server.models import Problem
from amberdb.server.options import ServerOptions
from amberdb.server.problems import MEDIA_TYPE, handle_errors
from amberdb.server.routes import Service, router

GRACE_S: Final = 10
"""For requests that run when it ends."""
CONNECTIONS_MAX: Final = 1_000

_PROBLEM: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "What went wrong, and what to do",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


@asynccontextmanager
async def open_service(
    path: str, *, extract: Extractor | None = None, flush_every_s: float = 300.0, **settings: Any
) -> AsyncGenerator[Service]:
    """The database with its systems; turns are flushed into a collection. Without an extractor it
    is the one of rules. `settings` are those of aio.open(). Raises what that raises."""
    async with database.open(path, **settings) as db:
        memory = await open_memory(db, extract=extract or RuleExtractor())
        sink = await db.run(CollectionSink, db.blocking)
        buffer = await open_chat_buffer(db, sink)
        flushing = asyncio.create_task(keep_flushing(buffer, Schedule(flush_every_s)))
        try:
            yield Service(db, memory, buffer)
        finally:
            flushing.cancel()
            await asyncio.gather(flushing, return_exceptions=True)


def application(service: Service, options: ServerOptions) -> ASGIApp:
    """For any ASGI server."""
    app = FastAPI(
        title="AmberDB",
        version=amberdb.__version__,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        responses=_PROBLEM,
    )
    app.state.service = service
    app.include_router(router)
    handle_errors(app, router)
    _describe(app, has_token=options.token is not None)
    return Guard(app, options)


async def serve(
    path: str,
    options: ServerOptions,
    *,
    extract: Extractor | None = None,
    ready: Callable[[str], object] = lambda url: None,
    **settings: Any,
) -> None:
    """Until a signal ends it; `ready` is told the URL. Raises what opening raises, and OSError when
    the port is taken."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.create_server((options.host, options.port), family=family, backlog=128)
    # asyncio does it for sockets that it binds itself; else small answers wait 40 ms for an ack.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listening:
        async with open_service(
            path, extract=extract, flush_every_s=options.flush_every_s, **settings
        ) as service:
            config = uvicorn.Config(
                application(service, options),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_graceful_shutdown=GRACE_S,
            )
            server = uvicorn.Server(config)
            host = f"[{options.host}]" if ":" in options.host else options.host
            with _ended_by_sigterm(server):
                ready(f"http://{host}:{listening.getsockname()[1]}")
                await server.serve(sockets=[listening])


@contextmanager
def _ended_by_sigterm(server: uvicorn.Server) -> Generator[None]:
    """Also before uvicorn listens for signals; when it has ended it raises them once more, which
    then does nothing."""

    def end(*_: object) -> None:
        server.should_exit = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _describe(app: FastAPI, *, has_token: bool) -> None:
    """Puts into the OpenAPI document what no route says."""
    document = app.openapi()
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    if has_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        document["paths"]["/health"]["get"]["security"] = []
