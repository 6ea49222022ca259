"""Runs the memory server, over standard input and output or streamable HTTP, until it ends.

    await serve("memory.amber", McpOptions())

Invariants:
- Nothing but the protocol is written to standard output.
- Over stdio the server ends with its input, or at SIGTERM and SIGINT; then the database is closed.
- Over HTTP the port is bound before the database is opened.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, Final

from amberdb._shared.local_http import ended_by_sigterm
from amberdb.mcp.options import McpOptions
from amberdb.mcp.store import OpenedStore

GRACE_S: Final = 3
"""Time for running requests to end after a signal."""
_LOG: Final = logging.getLogger("amberdb.mcp")


async def serve(
    path: str | None,
    options: McpOptions | None = None,
    *,
    ready: Callable[[str], object] = lambda url: None,
) -> None:
    """Runs the server until its input ends, or a signal; over HTTP `ready` is called with the URL.
    Without a path the database is the one in the user's data directory.

        asyncio.run(serve("memory.amber", McpOptions(namespace="work")))

    A database that cannot be opened ends nothing: the calls answer with the reason. Raises OSError
    when the port is in use, ModuleNotFoundError without the extra `mcp`."""
    from amberdb.mcp.server import memory_server

    options = options or McpOptions()
    if options.host is None:
        async with memory_server(path, options) as (server, opened):
            await _serve_stdio(server, opened)
        return
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.create_server((options.host, options.port), family=family) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with memory_server(path, options) as (server, _):
            await _serve_http(server, options, listening, ready)


async def _serve_stdio(server: Any, opened: OpenedStore) -> None:
    from mcp.server.stdio import stdio_server

    loop = asyncio.get_running_loop()
    is_ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, is_ended.set)
    ending = asyncio.create_task(_end(is_ended, opened))
    try:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())
    finally:
        ending.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _end(is_ended: asyncio.Event, opened: OpenedStore) -> None:
    """Ends the process at a signal. The thread that reads standard input cannot be interrupted, and
    an ordinary exit would wait for it."""
    await is_ended.wait()
    try:
        await opened.close()
    except Exception as error:
        _LOG.error("the database was not closed: %s", error)
    logging.shutdown()
    os._exit(0)


async def _serve_http(
    server: Any, options: McpOptions, listening: socket.socket, ready: Callable[[str], object]
) -> None:
    import uvicorn

    from amberdb.mcp.guard import Guard

    assert options.host is not None
    assert options.token is not None
    config = uvicorn.Config(
        Guard(server.streamable_http_app(host=options.host), options.token),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    host = f"[{options.host}]" if ":" in options.host else options.host
    running = uvicorn.Server(config)
    with ended_by_sigterm(running):
        ready(f"http://{host}:{listening.getsockname()[1]}/mcp")
        await running.serve(sockets=[listening])
