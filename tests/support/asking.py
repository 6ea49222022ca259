"""Requests to the HTTP server, in one process."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from amberdb.server import ServerOptions, application, open_service
from amberdb.server.service import Service
from support.awaiting import assert_sound
from support.databases import SMALL

LOCAL = "http://127.0.0.1:8000"


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


@asynccontextmanager
async def served(
    directory: Path,
    *,
    base_url: str = LOCAL,
    client: tuple[str, int] = ("127.0.0.1", 123),
    systems: Any = None,
    **options: Any,
) -> AsyncGenerator[tuple[httpx.AsyncClient, Service]]:
    path = str(directory / "t.amber")
    settings: dict[str, Any] = {**SMALL, **(systems or {})}
    async with open_service(path, **settings) as service:
        app = application(service, ServerOptions(**options))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=client)
        async with httpx.AsyncClient(transport=transport, base_url=base_url) as asking:
            yield asking, service
        await assert_sound(service.db)


def assert_problem(response: httpx.Response, status: int, words: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == status
    assert words in found["detail"]
    assert found["title"]
    assert found["code"]
    return found
