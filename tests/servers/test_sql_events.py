"""Stores of events on real servers: the contract with each driver, then passwords, rights, kills,
several processes, poolers and servers that are set up in unusual ways."""

import asyncio
import itertools
import logging
import multiprocessing
import random
import socket
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import pytest
import sqlalchemy as sa

from amberdb.events import EventStore
from amberdb.events.contract import EventStoreContract, event
from amberdb.sql import SqlAccessError, SqlError, SqlSchemaError, SqlSink, SqlUnreachableError
from amberdb.sql.address import address_of
from amberdb.sql.connections import Connections
from amberdb.sql.event_table import event_table
from amberdb.sql.schema import prepare
from amberdb.sql.tables import steps_of
from support import slices
from support.event_loops import use_at_once, use_one_after_another
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

    def maker(self, store: EventStore) -> Callable[[], EventStore]:
        return partial(sql_store, self.url, self.name)


class OnPostgres18(OnServer):
    @pytest.fixture(autouse=True)
    def _server(self, postgres18: PostgreSQL) -> None:
        self.url = postgres18.url(f"postgresql+{self.driver}", database(postgres18))


class TestAsyncpg(OnPostgres18):
    driver = "asyncpg"


class TestPsycopg(OnPostgres18):
    driver = "psycopg"


class OnDebian(OnServer):
    """PostgreSQL 15 on Debian 12."""

    @pytest.fixture(autouse=True)
    def _server(self, debian_postgres: PostgreSQL) -> None:
        self.url = debian_postgres.url(f"postgresql+{self.driver}", database(debian_postgres))


class TestAsyncpgOnDebian(OnDebian):
    driver = "asyncpg"


class TestPsycopgOnDebian(OnDebian):
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


DRIVERS: Final = {
    "asyncpg": "postgres18",
    "psycopg": "postgres18",
    "aiomysql": "mariadb_server",
    "asyncmy": "mariadb_server",
}


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest) -> EventStore:
    """With each driver, in a table of its own."""
    server: PostgreSQL | MariaDB = request.getfixturevalue(DRIVERS[request.param])
    kind = "mysql" if isinstance(server, MariaDB) else "postgresql"
    url = server.url(f"{kind}+{request.param}", database(server))
    return sql_store(url, f"events{next(_names)}")


# A driver that deletes a connection of a loop that is closed may say so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_event_loops_one_after_another(store: EventStore) -> None:
    use_one_after_another(store)


def test_event_loops_at_once(store: EventStore) -> None:
    use_at_once(store)


def test_batches_of_the_same_events_in_other_orders(store: EventStore) -> None:
    """Each waits for rows of another one: in PostgreSQL that was a deadlock, and a second each."""
    events = [event(n) for n in range(100)]

    async def one(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(3):
            await store.store_many(rng.sample(events, len(events)))

    async def work(store: EventStore) -> int:
        await asyncio.gather(*map(one, range(12)))
        return (await store.get_stats())["total_events"]

    assert run(store, work) == 100


def test_tasks_that_are_cancelled_lose_no_connection(store: EventStore) -> None:
    async def work(store: EventStore) -> None:
        for number in range(24):  # more than the pool has connections
            task = asyncio.create_task(store.store_many([event(n) for n in range(20)]))
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert len(await store.retrieve()) in (0, 20)
            await store.clear()
        assert await store.store_many([event(n) for n in range(20)]) == 20

    run(store, work)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_server_that_gives_two_connections(request: pytest.FixtureRequest, driver: str) -> None:
    server: PostgreSQL | MariaDB = request.getfixturevalue(DRIVERS[driver])
    name = server.new_database()
    if isinstance(server, PostgreSQL):
        server.execute(
            "CREATE ROLE poor LOGIN PASSWORD 'poor' CONNECTION LIMIT 2;"
            f"ALTER DATABASE {name} OWNER TO poor"
        )
    else:
        server.execute(
            "CREATE USER poor@'%' IDENTIFIED BY 'poor' WITH MAX_USER_CONNECTIONS 2;"
            f"GRANT ALL PRIVILEGES ON {name}.* TO poor"
        )
    try:
        kind = "mysql" if isinstance(server, MariaDB) else "postgresql"
        url = server.url(f"{kind}+{driver}", name, user="poor", password="poor")

        async def work(store: EventStore) -> None:
            assert all(await asyncio.gather(*(store.store(event(n)) for n in range(40))))

        run(sql_store(url), work)
    finally:
        if isinstance(server, PostgreSQL):
            server.execute(f"ALTER DATABASE {name} OWNER TO amber")
            server.execute("DROP OWNED BY poor CASCADE; DROP ROLE poor", name)
        else:
            server.execute("DROP USER poor")


def _write(url: str, name: str, told: Any) -> None:
    """A process that stores events until it is told to stop; it tells how many."""

    async def work(store: EventStore) -> int:
        number = 0
        while not told.poll():
            await store.store_many([event(number, event_id=f"a{number}"), event(number)])
            number += 1
            if number == 20:
                told.send(number)
        return number

    told.send(run(sql_store(url, name), work))


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mysql+pymysql"])
def test_a_table_is_brought_forward_while_another_program_writes(
    request: pytest.FixtureRequest, driver: str
) -> None:
    at: PostgreSQL | MariaDB = request.getfixturevalue(
        "postgres18" if driver.startswith("postgresql") else "mariadb_server"
    )
    url, table = at.url(driver, at.new_database()), event_table("shared")
    add = "ALTER TABLE shared ADD COLUMN colour VARCHAR(20) DEFAULT 'red' NOT NULL"

    def second(connection: sa.Connection) -> None:
        connection.exec_driver_sql(add)

    steps = [*steps_of(table), second]
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    other = url.replace("pymysql", "aiomysql")
    child = spawn.Process(target=_write, args=(other, "shared", there))
    child.start()
    assert here.recv() == 20
    connections = Connections(address_of(url, ("postgresql", "mysql"), blocking=True))
    connections.run(lambda c: prepare(c, table, steps))
    connections.run(lambda c: prepare(c, table, steps))  # twice would fail
    here.send("stop")
    stored = here.recv()
    child.join(60)
    assert child.exitcode == 0
    count = "SELECT count(*) FROM shared WHERE colour = 'red'"
    assert connections.run(lambda c: c.exec_driver_sql(count).scalar()) == 2 * stored
    connections.close()


# -- access --------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg"])
def test_access_to_postgresql(
    postgres18: PostgreSQL, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = postgres18.new_database()
    postgres18.execute("CREATE ROLE guest LOGIN PASSWORD 'guest-password'")
    try:
        _check_access(
            postgres18,
            driver,
            name,
            caplog,
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
def test_access_to_mariadb(
    mariadb_server: MariaDB, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = mariadb_server.new_database()
    mariadb_server.execute(
        f"CREATE USER guest@'%' IDENTIFIED BY 'guest-password'; GRANT SELECT ON {name}.* TO guest"
    )
    try:
        _check_access(
            mariadb_server,
            driver,
            name,
            caplog,
            grant=lambda: mariadb_server.execute(
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO guest"
            ),
        )
    finally:
        mariadb_server.execute("DROP USER guest")


def _check_access(
    server: Server,
    driver: str,
    name: str,
    caplog: pytest.LogCaptureFixture,
    grant: Callable[[], object],
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "sqlalchemy")

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
    assert "wr0ng" not in caplog.text
    assert "guest-password" not in caplog.text
    assert run(sql_store(server.url(driver, name), "own"), work) == ["evt_1"]
    grant()
    assert run(sql_store(guest, "own"), work) == ["evt_1"]


def test_who_may_read_alone_is_told(postgres18: PostgreSQL, mariadb_server: MariaDB) -> None:
    async def write(store: EventStore) -> bool:
        return await store.store(event(1))

    async def read(store: EventStore) -> None:
        assert len(await store.retrieve()) == 1
        for call in (store.store(event(2)), store.store_many([event(2), event(3)]), store.clear()):
            with pytest.raises(SqlAccessError, match="grant the right"):
                await call

    name = postgres18.new_database()
    run(sql_store(postgres18.url("postgresql+asyncpg", name)), write)
    postgres18.execute(
        "CREATE ROLE reader LOGIN PASSWORD 'reading';"
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
        name,
    )
    try:
        url = postgres18.url("postgresql+asyncpg", name, user="reader", password="reading")
        run(sql_store(url), read)
    finally:
        postgres18.execute("DROP OWNED BY reader; DROP ROLE reader", name)
    name = mariadb_server.new_database()
    run(sql_store(mariadb_server.url("mysql+asyncmy", name)), write)
    mariadb_server.execute(
        f"CREATE USER reader@'%' IDENTIFIED BY 'reading'; GRANT SELECT ON {name}.* TO reader"
    )
    try:
        url = mariadb_server.url("mysql+asyncmy", name, user="reader", password="reading")
        run(sql_store(url), read)
    finally:
        mariadb_server.execute("DROP USER reader")


@pytest.mark.parametrize("driver", ["aiomysql", "asyncmy", "pymysql"])
def test_a_server_without_tls_is_refused_where_the_url_asks_for_it(
    mariadb_server: MariaDB, driver: str
) -> None:
    url = mariadb_server.url(f"mysql+{driver}", database(mariadb_server)) + "?ssl-mode=REQUIRED"
    if driver == "pymysql":
        with pytest.raises(SqlError, match="SSL is required"):
            SqlSink(url).load("c", 1, None)
        return
    with pytest.raises(SqlUnreachableError):
        run(sql_store(url, "own"), lambda store: store.retrieve())


@pytest.mark.parametrize(
    "driver", ["postgresql+asyncpg", "postgresql+psycopg", "mysql+aiomysql", "mysql+asyncmy"]
)
def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    monkeypatch.setattr("amberdb.sql.connections.CONNECT_S", 1)
    monkeypatch.setattr("amberdb.sql.address.CONNECT_S", 2)  # psycopg takes 2 for the least
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{driver}://u:wr0ng@127.0.0.1:{silent.getsockname()[1]}/d"
        with pytest.raises(SqlUnreachableError, match="try again") as raised:
            run(sql_store(url), lambda store: store.retrieve())
    assert "wr0ng" not in str(raised.value)


@pytest.mark.parametrize("driver", ["postgresql", "mysql"])
def test_a_server_that_says_nothing_to_a_sink(monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    monkeypatch.setattr("amberdb.sql.address.CONNECT_S", 2)
    monkeypatch.setattr("amberdb.sql.address.ANSWER_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = SqlSink(f"{driver}://u:wr0ng@127.0.0.1:{silent.getsockname()[1]}/d")
        with pytest.raises(SqlUnreachableError, match="try again") as raised:
            sink.load("c", 1, None)
        sink.close()
    assert "wr0ng" not in str(raised.value)


def test_an_old_server_is_refused(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    oldest = {"postgresql": (99,), "mariadb": (99,)}
    monkeypatch.setattr("amberdb.sql.schema._OLDEST", oldest)
    with pytest.raises(SqlSchemaError, match="99 is the oldest that this store can use"):
        run(store, lambda opened: opened.retrieve())


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
