"""Migrations of events from and to real servers: between any two stores, killed and run again, and
in bounded memory."""

import asyncio
import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import pytest

from amberdb.events import EventStore, InMemoryEventStore, Moved, migrate
from amberdb.events.contract_base import assert_same
from support.databases import SMALL
from support.migrating import Made, everything, made, opened, some, sql_store
from support.servers import MariaDB, PostgreSQL

TESTS: Final = Path(__file__).parent.parent
DRIVERS: Final = {
    "postgres18": "postgresql+asyncpg",
    "postgres16": "postgresql+psycopg",
    "mariadb_server": "mysql+aiomysql",
}
OTHERS: Final = (
    "memory",
    "database",
    "lines by session",
    "lines in one file",
    "arrays",
    "lines that rotate",
    "sqlite",
)
_numbers: Final = itertools.count()


def new_url(request: pytest.FixtureRequest, server: str) -> str:
    at = cast(PostgreSQL | MariaDB, request.getfixturevalue(server))
    return at.url(DRIVERS[server], at.new_database())


@asynccontextmanager
async def store_of(kind: str, url: str, path: Path) -> AsyncGenerator[EventStore]:
    path = path / f"store {next(_numbers)}"
    if kind == "memory":
        yield InMemoryEventStore()
        return
    kind = {"sqlite": f"sqlite:///{path}"}.get(kind, url or kind)
    options: dict[str, Any] = SMALL if kind == "database" else {}
    async with opened(kind, path, **options) as store:
        yield store


@pytest.mark.parametrize("other", [*OTHERS, *DRIVERS])
@pytest.mark.parametrize("server", DRIVERS)
def test_there_and_back(
    request: pytest.FixtureRequest, tmp_path: Path, server: str, other: str
) -> None:
    urls = [new_url(request, name) if name in DRIVERS else "" for name in (server, other)]

    async def work() -> None:
        async with (
            store_of(server, urls[0], tmp_path) as here,
            store_of(other, urls[1], tmp_path) as there,
        ):
            events = some(40)
            await here.store_many(events)
            moved = await migrate(here, there, batch=9)
            assert moved == Moved(found=40, stored=40, verified=40)
            assert_same(await everything(there), events)
            await here.clear()
            assert await migrate(there, here, batch=9) == moved
            assert_same(await everything(here), events)
            again = await migrate(there, here, batch=9)
            assert again == Moved(found=40, present=40, verified=40)

    asyncio.run(work())


COUNT, BATCH = 3_000, 50


async def _count(url: str) -> int:
    store = sql_store(url)
    await store.initialize()
    try:
        return (await store.get_stats())["total_events"]
    finally:
        await store.close()


@pytest.mark.parametrize("server", ["sqlite", *DRIVERS])
def test_a_migration_that_is_killed_goes_on(
    request: pytest.FixtureRequest, tmp_path: Path, server: str
) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}" if server == "sqlite" else new_url(request, server)
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(4):
        before = asyncio.run(_count(url))
        child = _migrating(url, COUNT, "kill")
        assert child.stdout is not None
        for _ in range(rng.randrange(1, 12)):  # batches
            if not child.stdout.readline():
                break
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        assert before <= asyncio.run(_count(url)) <= COUNT

    async def rest() -> None:
        there = await _count(url)
        async with opened(url, Path()) as target:
            moved = await migrate(Made(COUNT), target, batch=BATCH)
            assert (moved.found, moved.verified, moved.failed) == (COUNT, COUNT, {})
            assert moved.stored <= COUNT - there + BATCH
            found = await everything(target)
        assert [each.event_id for each in found] == [made(n).event_id for n in range(COUNT)]
        assert_same(found, [made(n) for n in range(COUNT)])

    asyncio.run(rest())


def _migrating(url: str, count: int, way: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "support.migrating", url, str(count), way, os.devnull]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="it needs /proc")
@pytest.mark.parametrize("server", DRIVERS)
def test_a_migration_takes_the_memory_of_some_batches(
    request: pytest.FixtureRequest, server: str
) -> None:
    held: list[int] = []
    for count in (2_000, 12_000):
        told, _ = _migrating(new_url(request, server), count, "migrate").communicate(timeout=150)
        held.append(int(told))
    print(f"{server}: {held[0] >> 20} MiB for 2,000 events, {held[1] >> 20} MiB for 12,000")
    assert held[1] < held[0] + (8 << 20)
