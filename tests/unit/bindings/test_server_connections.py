"""Connections of the HTTP server: silent and slow ones end, and take no place from another."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from amberdb.server import ServerOptions, connections
from amberdb.server.connections import Connections, connection_class, connections_max
from support.serving import serving

REQUEST = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"GET /now HTTP/1.1\r\nHost: loc"
BODY = b"POST /now HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"  # 1 of 9 bytes


class Client:
    """One connection, as its client sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def status(self) -> int:
        """Of the next answer, which has no body."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1])

    async def ask(self, path: bytes = b"now") -> int:
        await self.send(REQUEST % path)
        return await self.status()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    async def end(self) -> bytes:
        """The rest of what the server sends, which ends the connection."""
        try:
            return await self._reader.read()
        except ConnectionResetError:
            return b""


class Service:
    """A server in this event loop; `/wait` is answered when it is released."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.released = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)
        self._clients: list[Client] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if Request(scope).url.path == "/wait":
            self.waiting.release()
            await self.released.wait()
        await Request(scope, receive).body()
        await PlainTextResponse("")(scope, receive, send)

    async def client(self, sends: bytes = b"") -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self._port))
        self._clients.append(client)
        await client.send(sends)
        return client

    async def close(self) -> None:
        self.released.set()
        for client in self._clients:
            await client.close()


@asynccontextmanager
async def service(limits: Connections) -> AsyncGenerator[Service]:
    listening = socket.create_server(("127.0.0.1", 0))
    service = Service(listening.getsockname()[1])
    config = uvicorn.Config(
        service,
        http=connection_class(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield service
    finally:
        await service.close()
        server.should_exit = True
        await task


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


@pytest.mark.parametrize("limits", [(3, 100), (100, 3)], ids=["of an address", "of the server"])
@pytest.mark.parametrize("sends", [b"", HALF, BODY])
def test_the_one_that_waits_longest_gives_way(limits: tuple[int, int], sends: bytes) -> None:
    async def test() -> None:
        async with service(Connections(*limits)) as server:
            busy = await server.client()
            assert await busy.ask() == 200  # so it waits for less long than the others below
            first, second = [await server.client(sends) for _ in range(2)]
            assert await busy.ask() == 200
            assert await (await server.client()).ask() == 200
            assert await first.end() == b""
            assert await (await server.client()).ask() == 200
            assert await second.end() == b""
            assert await busy.ask() == 200

    run(test)


def test_those_that_are_being_answered_stay_and_one_more_is_refused() -> None:
    async def test() -> None:
        async with service(Connections(3, 100)) as server:
            asked = [await server.client(REQUEST % b"wait") for _ in range(3)]
            for _ in asked:
                await server.waiting.acquire()
            refused = await server.client()
            assert await refused.status() == 503
            assert await refused.end() == b""
            server.released.set()
            assert [await each.status() for each in asked] == [200] * 3
            assert await (await server.client()).ask() == 200  # they wait again

    run(test)


def test_a_request_has_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADER_S", 0.05)

    async def test() -> None:
        async with service(Connections(100, 100)) as server:
            asked = await server.client(REQUEST % b"wait")
            await server.waiting.acquire()
            for sends in (b"", HALF):
                slow = await server.client(sends)
                assert await slow.status() == 408
                assert await slow.end() == b""
            again = await server.client()
            assert await again.ask() == 200
            await again.send(HALF)  # of the second request
            assert await again.status() == 408
            server.released.set()
            assert await asked.status() == 200  # an answer may take longer

    run(test)


def test_half_of_the_descriptors_are_left_for_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for descriptors, expected in ((256, 128), (1, 1), (100_000, 1_000), (-1, 1_000)):

        def limits(_which: int, soft: int = descriptors) -> tuple[int, int]:
            return soft, soft

        monkeypatch.setattr("resource.getrlimit", limits)
        assert connections_max() == expected


def test_the_limit_is_an_option() -> None:
    with pytest.raises(ValueError, match="connections_per_address"):
        ServerOptions(connections_per_address=0)


@pytest.mark.slow
def test_a_crowd_of_silent_clients_stops_nobody(tmp_path: Path) -> None:
    with serving(tmp_path / "t.amber", "--connections-per-address", "5") as server:
        port = int(server.url.rpartition(":")[2])
        crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        with httpx.Client(base_url=server.url, timeout=30) as client:
            assert client.get("/health").status_code == 200
        for each in crowd:
            each.close()
