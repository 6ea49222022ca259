"""An HTTP server for the memory systems of a database: docs/server.md.

    amberdb serve memory.amber                  the command line
    await serve("memory.amber", ServerOptions())  the same from a program
    app = application(service, options)           for your own ASGI server

The extra `amberdb[server]` installs FastAPI and uvicorn; no other package of amberdb imports them.

Invariants:
- The port is bound before the database is opened, so a port in use is reported first. Clients that
  connect meanwhile wait. The database is closed after the last response.
- SIGTERM and SIGINT shut down gracefully: no new connections, running requests are answered, and
  all writes are on disk.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Unpack, cast

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

import amberdb
from amberdb import Database, OpenOptions
from amberdb._shared.local_http import ended_by_sigterm
from amberdb._shared.systems import prefixed
from amberdb.aio.database import connect_or_open
from amberdb.chat import CollectionSink, Schedule, Sink
from amberdb.chat.aio import keep_flushing, open_chat_buffer
from amberdb.chat.sinks import ARCHIVE
from amberdb.memory import RuleExtractor
from amberdb.memory.aio import open_memory
from amberdb.server.connections import Connections, connection_class, connections_max
from amberdb.server.guard import Guard
from amberdb.server.models import Problem
from amberdb.server.options import ServerOptions, ServiceOptions
from amberdb.server.problems import MEDIA_TYPE, handle_errors
from amberdb.server.routes import ROUTERS, all_routes
from amberdb.server.service import Service

GRACE_S: Final = 10
"""Time for running requests to end after a signal."""

_PROBLEM: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "The error, and what to do about it",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


@asynccontextmanager
async def open_service(
    path: str, *, flush_every_s: float = 300.0, **settings: Unpack[ServiceOptions]
) -> AsyncGenerator[Service]:
    """Opens the database with its systems; turns are flushed to a collection, or to another sink.
    `settings` are ServiceOptions, and options of aio.connect(). Raises as that, CollectionError,
    and what the sink raises."""
    name = settings.pop("name", None)
    embed, dim = settings.pop("embed", None), settings.pop("dim", None)
    model = settings.pop("model", None)
    extract = settings.pop("extract", None) or RuleExtractor()
    retention, categories = settings.pop("retention", None), settings.pop("categories", None)
    sink_of: Callable[[Database], Sink] = settings.pop("sink", None) or partial(
        CollectionSink, name=prefixed(name, ARCHIVE)
    )
    async with connect_or_open(path, **cast(OpenOptions, settings)) as db:
        memory = await open_memory(
            db,
            name=name,
            embed=embed,
            dim=dim,
            model=model,
            extract=extract,
            retention=retention,
            categories=categories,
        )
        sink = await db.in_thread(sink_of, db.blocking)
        buffer = await open_chat_buffer(db, sink, name=name)
        flushing = asyncio.create_task(keep_flushing(buffer, Schedule(flush_every_s)))
        try:
            yield Service(db, memory, buffer, name=name, embed=embed, dim=dim, model=model)
        finally:
            flushing.cancel()
            await asyncio.gather(flushing, return_exceptions=True)


def application(service: Service, options: ServerOptions) -> ASGIApp:
    """The ASGI application, for any ASGI server."""
    app = FastAPI(
        title="AmberDB",
        version=amberdb.__version__,
        docs_url=None,  # these pages load scripts from other hosts
        redoc_url=None,
        responses=_PROBLEM,
    )
    app.state.service = service
    for router in ROUTERS:
        app.include_router(router)
    handle_errors(app, all_routes())
    _describe(app, has_token=options.token is not None)
    return Guard(app, options)


async def serve(
    path: str,
    options: ServerOptions,
    *,
    ready: Callable[[str], object] = lambda url: None,
    **settings: Unpack[ServiceOptions],
) -> None:
    """Runs the server until a signal ends it; `ready` is called with the URL. Raises as
    aio.connect(), and OSError when the port is in use."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.create_server((options.host, options.port), family=family, backlog=128)
    # asyncio sets it only on sockets that it binds; without it small responses wait 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with listening:
        async with open_service(path, flush_every_s=options.flush_every_s, **settings) as service:
            connections = Connections(options.connections_per_address, connections_max())
            config = uvicorn.Config(
                application(service, options),
                http=connection_class(connections),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # clients.py reads them, from proxies that were named
                timeout_graceful_shutdown=GRACE_S,
            )
            server = uvicorn.Server(config)
            host = f"[{options.host}]" if ":" in options.host else options.host
            with ended_by_sigterm(server):
                ready(f"http://{host}:{listening.getsockname()[1]}")
                await server.serve(sockets=[listening])


def _describe(app: FastAPI, *, has_token: bool) -> None:
    """Adds the error schema and the bearer token to the OpenAPI document."""
    document = app.openapi()
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    if has_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        document["paths"]["/health"]["get"]["security"] = []
