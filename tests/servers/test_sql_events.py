"""Stores of events on real servers: the contract with each driver, then passwords, rights, kills,
several processes, poolers and servers that are set up in unusual ways."""

import asyncio
import itertools
import multiprocessing
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import pytest

from amberdb.events import EventStore
from amberdb.events.contract import EventStoreContract, event
from amberdb.sql import SqlAccessError, SqlSchemaError, SqlUnreachableError
from support import slices
from support.migrating import sql_store
from support.servers import MariaDB, PgBouncer, PostgreSQL, Server, mariadb, postgres

_T = TypeVar("_T")
_names: Final = itertools.count(1)
_databases: Final[dict[tuple[int, str], str]] = {}


def database(server: PostgreSQL | MariaDB | PgBouncer, kind: str = "") -> str:
    """One for all tests of a server that need no other; each has tables of its own."""
    key = (server.port, kind)
    if key not in _databases:
        _databases[key] = server.new_database()
    return _databases[key]


def run(store: EventStore, work: Callable[[EventStore], Awaitable[_T]]) -> _T:
    async def whole() -> _T:
        try:
            await store.initialize()
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(whole())


# -- the contract --------------------------------------------------------------------------------


class OnServer(EventStoreContract):
    """A store in a table of its own, on the server of the fixture `server`."""

    driver: str
    url: str

    def make(self) -> EventStore:
        self.name = f"events{next(_names)}"
        return sql_store(self.url, self.name)

    def make_other(self, store: EventStore) -> EventStore | None:
        return sql_store(self.url, self.name)


class OnPostgres18(OnServer):
    @pytest.fixture(autouse=True)
    def _server(self, postgres18: PostgreSQL) -> None:
        self.url = postgres18.url(f"postgresql+{self.driver}", database(postgres18))


class TestAsyncpg(OnPostgres18):
    driver = "asyncpg"


class TestPsycopg(OnPostgres18):
    driver = "psycopg"


class TestPostgres16InAnotherTimeZone(OnServer):
    """Years of a zone begin before those of UTC, and a driver that converts fails on the year 1."""

    driver = "asyncpg"

    @pytest.fixture(autouse=True)
    def _server(self, postgres16: PostgreSQL) -> None:
        name = database(postgres16, "zone")
        postgres16.execute(
            f"ALTER DATABASE {name} SET timezone = 'America/Los_Angeles';"
            f"ALTER DATABASE {name} SET datestyle = 'SQL, DMY';"
            f"ALTER DATABASE {name} SET intervalstyle = 'iso_8601'"
        )
        self.url = postgres16.url(f"postgresql+{self.driver}", name)


class TestPsycopgInAnotherTimeZone(TestPostgres16InAnotherTimeZone):
    driver = "psycopg"


class OnMariaDB(OnServer):
    @pytest.fixture(autouse=True)
    def _server(self, mariadb_server: MariaDB) -> None:
        self.url = mariadb_server.url(f"mysql+{self.driver}", database(mariadb_server))


class TestAiomysql(OnMariaDB):
    driver = "aiomysql"


class TestAsyncmy(OnMariaDB):
    driver = "asyncmy"


class TestMariaDBThatCutsValues(OnServer):
    """A database of another character set, on a server whose sessions are not strict by
    themselves and have another time zone."""

    driver = "aiomysql"

    @pytest.fixture(autouse=True)
    def _server(self, mariadb_server: MariaDB) -> None:
        name = database(mariadb_server, "latin1")
        mariadb_server.execute(
            f"ALTER DATABASE {name} CHARACTER SET latin1 COLLATE latin1_swedish_ci;"
            "SET GLOBAL sql_mode = ''; SET GLOBAL time_zone = '-08:00'"
        )
        self.url = mariadb_server.url(f"mysql+{self.driver}", name)


class ThroughPgBouncer(OnServer):
    """In transaction mode, on a port that does not tell it."""

    @pytest.fixture(autouse=True)
    def _server(self, pgbouncer18: PgBouncer) -> None:
        url = pgbouncer18.url(f"postgresql+{self.driver}", database(pgbouncer18))
        self.url = f"{url}?pgbouncer=true"


class TestAsyncpgThroughPgBouncer(ThroughPgBouncer):
    driver = "asyncpg"


class TestPsycopgThroughPgBouncer(ThroughPgBouncer):
    driver = "psycopg"


# -- many at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_sixty_tasks_through_two_connections_of_a_pooler(
    pgbouncer18: PgBouncer, driver: str
) -> None:
    url = pgbouncer18.url(f"postgresql+{driver}", database(pgbouncer18))
    store = sql_store(f"{url}?pgbouncer=true", f"events{next(_names)}")

    async def one(number: int) -> None:
        await store.store(event(number))
        await store.store_many([event(number), event(100 + number)])
        assert len(await store.retrieve(session_id=f"session/{number % 2}", limit=3)) <= 3
        await store.search("calculator", limit=2)

    async def work(store: EventStore) -> int:
        await asyncio.gather(*map(one, range(60)))
        return (await store.get_stats())["total_events"]

    assert run(store, work) == 120


def _store_some(url: str, name: str, first: int, count: int, barrier: Any) -> None:
    async def work(store: EventStore) -> None:
        for number in range(first, first + count, 10):
            await store.store_many([event(n) for n in range(number, number + 5)])
            for n in range(number + 5, number + 10):
                await store.store(event(n))

    barrier.wait(60)
    run(sql_store(url, name), work)  # makes the table at the same time as the other


@pytest.mark.parametrize("server", ["postgres18", "mariadb_server"])
def test_two_processes_make_a_table_and_store_at_once(
    request: pytest.FixtureRequest, server: str
) -> None:
    at = cast(PostgreSQL | MariaDB, request.getfixturevalue(server))
    driver = "postgresql+asyncpg" if server == "postgres18" else "mysql+aiomysql"
    url, name = at.url(driver, at.new_database()), "shared"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    children = [
        context.Process(target=_store_some, args=(url, name, first, 500, barrier))
        for first in (0, 250)  # half of the events are stored by both
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0

    async def work(store: EventStore) -> list[str]:
        return [each.event_id for each in await store.retrieve(limit=None)]

    found = run(sql_store(url, name), work)
    assert sorted(found) == sorted(f"evt_{number}" for number in range(750))


# -- access --------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg"])
def test_access_to_postgresql(postgres18: PostgreSQL, driver: str) -> None:
    name = postgres18.new_database()
    postgres18.execute("CREATE ROLE guest LOGIN PASSWORD 'guest-password'")
    try:
        _check_access(
            postgres18,
            driver,
            name,
            grant=lambda: postgres18.execute(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest;"
                "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO guest",
                name,
            ),
        )
    finally:
        postgres18.execute("DROP OWNED BY guest", name)
        postgres18.execute("DROP ROLE guest")


@pytest.mark.parametrize("driver", ["mysql+aiomysql", "mysql+asyncmy"])
def test_access_to_mariadb(mariadb_server: MariaDB, driver: str) -> None:
    name = mariadb_server.new_database()
    mariadb_server.execute(
        f"CREATE USER guest@'%' IDENTIFIED BY 'guest-password'; GRANT SELECT ON {name}.* TO guest"
    )
    try:
        _check_access(
            mariadb_server,
            driver,
            name,
            grant=lambda: mariadb_server.execute(
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO guest"
            ),
        )
    finally:
        mariadb_server.execute("DROP USER guest")


def _check_access(server: Server, driver: str, name: str, grant: Callable[[], object]) -> None:
    async def work(store: EventStore) -> list[str]:
        await store.store(event(1))
        return [each.event_id for each in await store.retrieve()]

    guest = server.url(driver, name, user="guest", password="guest-password")
    for url in (
        server.url(driver, name, password="wr0ng"),
        server.url(driver, name, user="nobody_here", password="wr0ng"),
        server.url(driver, "no_database_here"),
        guest,  # may not create the table
    ):
        with pytest.raises(SqlAccessError, match="correct user, password and database") as raised:
            run(sql_store(url, "own"), work)
        told = "".join(traceback.format_exception(raised.value))
        assert "wr0ng" not in told
        assert "guest-password" not in told
    assert run(sql_store(server.url(driver, name), "own"), work) == ["evt_1"]
    grant()
    assert run(sql_store(guest, "own"), work) == ["evt_1"]


def test_a_newer_table_and_a_foreign_one(postgres18: PostgreSQL, mariadb_server: MariaDB) -> None:
    async def work(store: EventStore) -> int:
        return (await store.get_stats())["total_events"]

    for at, driver in ((postgres18, "postgresql+asyncpg"), (mariadb_server, "mysql+asyncmy")):
        name = at.new_database()
        url = at.url(driver, name)
        run(sql_store(url, "own"), work)
        at.execute("CREATE TABLE other (event_id INT)", name)
        if isinstance(at, PostgreSQL):
            at.execute("GRANT ALL ON other TO amber", name)
        with pytest.raises(SqlSchemaError, match="another program"):
            run(sql_store(url, "other"), work)
        at.execute("UPDATE amberdb_schema SET version = 7", name)
        with pytest.raises(SqlSchemaError, match="version 7, and this program knows up to 1"):
            run(sql_store(url, "own"), work)


# -- kills ---------------------------------------------------------------------------------------


def _check_kills(server: PostgreSQL | MariaDB, driver: str) -> None:
    """Kills the server again and again under writers, and compares with what they were told."""
    store = sql_store(server.url(driver, server.new_database()), "killed")
    acknowledged: list[str] = []
    errors: list[Exception] = []
    kills = slices.size(25, 5)

    async def write(writer: int, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            one = event(0, event_id=f"{writer}/{number}")
            try:
                await (store.store_many([one]) if writer % 2 else store.store(one))
                acknowledged.append(one.event_id)
                number += 1
            except SqlUnreachableError as error:
                errors.append(error)  # stored again under the same id

    async def work(store: EventStore) -> list[str]:
        stop = asyncio.Event()
        writers = [asyncio.create_task(write(writer, stop)) for writer in range(4)]
        for _ in range(kills):
            before = len(acknowledged)
            while len(acknowledged) < before + 40:
                await asyncio.sleep(0)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)
        before = len(acknowledged)
        while len(acknowledged) < before + 40:
            await asyncio.sleep(0)
        stop.set()
        await asyncio.gather(*writers)
        return [each.event_id for each in await store.retrieve(limit=None)]

    found = run(store, work)
    assert len(set(found)) == len(found)
    assert set(acknowledged) <= set(found)
    assert errors
    assert len(set(found) - set(acknowledged)) == 0, "each event was stored again until it was told"


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg"])
def test_postgresql_that_is_killed_loses_nothing(driver: str) -> None:
    with postgres(18) as server:
        _check_kills(server, driver)


@pytest.mark.parametrize("driver", ["mysql+aiomysql", "mysql+asyncmy"])
def test_mariadb_that_is_killed_loses_nothing(driver: str) -> None:
    with mariadb() as server:
        _check_kills(server, driver)
