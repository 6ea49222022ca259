"""The servers that other tests rely on: they answer, refuse, keep what was committed, and end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from support import server_process
from support.server_process import (
    ServerError,
    ServerProcess,
    home,
    is_alive,
    program,
    readable,
    run,
    wait_until,
)
from support.servers import MariaDB, PgBouncer, PostgreSQL, Server, mariadb, pgbouncer, postgres

Own = Callable[[], AbstractContextManager[PostgreSQL | MariaDB]]

ANSWERS = [
    ("postgres18", "postgresql+asyncpg", "PostgreSQL 18."),
    ("postgres18", "postgresql+psycopg", "PostgreSQL 18."),
    ("postgres16", "postgresql+asyncpg", "PostgreSQL 16."),
    ("postgres16", "postgresql+psycopg", "PostgreSQL 16."),
    ("pgbouncer18", "postgresql+psycopg", "PostgreSQL 18."),
    ("mariadb_server", "mysql+aiomysql", "MariaDB"),
    ("mariadb_server", "mysql+asyncmy", "MariaDB"),
]
SHARED = ["postgres18", "postgres16", "mariadb_server", "pgbouncer18"]
OWN: dict[str, Own] = {
    "postgres18": lambda: postgres(18),
    "postgres16": lambda: postgres(16),
    "mariadb": mariadb,
}
each_shared = pytest.mark.parametrize("name", SHARED)
each_own = pytest.mark.parametrize("own", OWN.values(), ids=OWN)


def connect(server: Server, database: str, **who: str) -> Connection:
    """By a synchronous driver, with no pool."""
    driver = "mysql+pymysql" if isinstance(server, MariaDB) else "postgresql+psycopg"
    # PgBouncer: a prepared statement would be of the server connection, which changes.
    options: dict[str, Any] = {} if isinstance(server, MariaDB) else {"prepare_threshold": None}
    url = server.url(driver, database, **who)
    return create_engine(url, connect_args=options, poolclass=NullPool).connect()


def value(connection: Connection, sql: str) -> Any:
    """The only value of a transaction."""
    found = connection.execute(text(sql)).scalar_one()
    connection.commit()
    return found


# -- what they answer --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "driver", "version"), ANSWERS)
def test_a_server_answers_through_each_driver(
    request: pytest.FixtureRequest, name: str, driver: str, version: str
) -> None:
    server: PostgreSQL | MariaDB | PgBouncer = request.getfixturevalue(name)
    url = server.url(driver, server.new_database())

    async def ask() -> str:
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.connect() as connection:
            return str((await connection.execute(text("SELECT version()"))).scalar_one())

    assert version in asyncio.run(ask())


@each_shared
def test_a_wrong_password_is_refused(request: pytest.FixtureRequest, name: str) -> None:
    server: PostgreSQL | MariaDB | PgBouncer = request.getfixturevalue(name)
    database = server.new_database()
    with connect(server, database) as connection:
        assert value(connection, "SELECT 1") == 1
    with pytest.raises(OperationalError, match=r"password|authentication failed|Access denied"):
        connect(server, database, password="wrong")


@each_shared
def test_the_superuser_is_refused_on_loopback(request: pytest.FixtureRequest, name: str) -> None:
    server: PostgreSQL | MariaDB | PgBouncer = request.getfixturevalue(name)
    user = "root" if isinstance(server, MariaDB) else "postgres"
    with pytest.raises(OperationalError, match=r"rejects connection|SASL|Access denied"):
        connect(server, server.new_database(), user=user)


@each_shared
def test_a_new_database_is_empty_and_apart(request: pytest.FixtureRequest, name: str) -> None:
    server: PostgreSQL | MariaDB | PgBouncer = request.getfixturevalue(name)
    for _ in range(2):
        with connect(server, server.new_database()) as connection:
            connection.execute(text("CREATE TABLE t (n INTEGER)"))
            assert value(connection, "SELECT count(*) FROM t") == 0


@pytest.mark.parametrize("name", ["postgres18", "postgres16"])
def test_pgvector_measures_a_distance(request: pytest.FixtureRequest, name: str) -> None:
    server: PostgreSQL = request.getfixturevalue(name)
    database = server.new_database()
    server.execute("CREATE EXTENSION vector", database)
    with connect(server, database) as connection:
        assert value(connection, "SELECT '[0,0]'::vector <-> '[3,4]'::vector") == 5


def test_a_user_of_few_rights_reads_and_may_not_write(mariadb_server: MariaDB) -> None:
    database = mariadb_server.new_database()
    mariadb_server.execute(
        f"CREATE TABLE {database}.t (n INTEGER);"
        f"CREATE USER reader IDENTIFIED BY 'reading'; GRANT SELECT ON {database}.* TO reader"
    )
    with connect(mariadb_server, database, user="reader", password="reading") as connection:
        assert value(connection, "SELECT count(*) FROM t") == 0
        with pytest.raises(DBAPIError, match="INSERT command denied"):
            connection.execute(text("INSERT INTO t VALUES (1)"))


def test_a_refused_statement_is_an_error(postgres18: PostgreSQL, mariadb_server: MariaDB) -> None:
    with pytest.raises(ServerError, match="syntax error"):
        postgres18.execute("SELEKT 1; SELECT 1")
    with pytest.raises(ServerError, match="error in your SQL syntax"):
        mariadb_server.execute("SELEKT 1; SELECT 1")


@pytest.mark.parametrize(("fsync", "shown"), [(False, "off"), (True, "on")])
def test_a_commit_is_written_and_synced_only_if_asked(*, fsync: bool, shown: str) -> None:
    with postgres(18, settings=["max_connections=17"], fsync=fsync) as server:
        found = server.execute("SHOW fsync; SHOW synchronous_commit; SHOW max_connections")
        assert found.split() == [shown, "on", "17"]


# -- PgBouncer ---------------------------------------------------------------------------------


def test_pgbouncer_hands_two_clients_the_same_backend(pgbouncer18: PgBouncer) -> None:
    database = pgbouncer18.new_database()
    with connect(pgbouncer18, database) as one, connect(pgbouncer18, database) as other:
        backend = value(one, "SELECT pg_backend_pid()")
        assert value(other, "SELECT pg_backend_pid()") == backend


def test_pgbouncer_keeps_no_state_for_a_client(pgbouncer18: PgBouncer) -> None:
    database = pgbouncer18.new_database()
    with connect(pgbouncer18, database) as one, connect(pgbouncer18, database) as other:
        one.execute(text("SET statement_timeout = 4321"))
        one.commit()
        assert value(other, "SHOW statement_timeout") == "4321ms"  # another client's
        other.execute(text("SELECT 1"))  # its transaction holds the backend
        assert value(one, "SHOW statement_timeout") == "0"  # its own is gone


def test_pgbouncer_has_so_many_backends_and_no_more(postgres18: PostgreSQL) -> None:
    with pgbouncer(postgres18, pool_size=1, settings=["query_wait_timeout=1"]) as bouncer:
        database = bouncer.new_database()
        with connect(bouncer, database) as one, connect(bouncer, database) as other:
            one.execute(text("SELECT 1"))
            with pytest.raises(DBAPIError, match="query_wait_timeout"):
                other.execute(text("SELECT 1"))


# -- kill and restart --------------------------------------------------------------------------


@each_own
def test_a_kill_keeps_what_was_committed_and_nothing_else(own: Own) -> None:
    with own() as server:
        database = server.new_database()
        with connect(server, database) as connection:
            connection.execute(text("CREATE TABLE t (n INTEGER)"))
            for n in range(50):
                connection.execute(text(f"INSERT INTO t VALUES ({n})"))
                connection.commit()
            connection.execute(text("INSERT INTO t VALUES (1000)"))
            pids = server.pids
            server.kill()
            assert not any(map(is_alive, pids))
            with pytest.raises(OperationalError):
                connect(server, database)
            connection.invalidate()
        server.restart()
        with connect(server, database) as connection:
            assert value(connection, "SELECT count(*) FROM t") == 50
            assert value(connection, "SELECT max(n) FROM t") == 49


def test_a_restart_is_another_process_on_the_same_port(postgres18: PostgreSQL) -> None:
    with pgbouncer(postgres18) as bouncer:
        database = bouncer.new_database()
        (before,) = bouncer.pids
        bouncer.restart()
        assert not is_alive(before)
        with connect(bouncer, database) as connection:
            assert value(connection, "SELECT 1") == 1


# -- what is left ------------------------------------------------------------------------------


def segments() -> set[str]:
    """Of shared memory on this machine, by id."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()}


def own_segments(server: PostgreSQL | MariaDB) -> set[str]:
    """MariaDB has none."""
    if isinstance(server, MariaDB):
        return set()
    told = (server.process.directory / "data" / "postmaster.pid").read_text()
    own = {told.split("\n")[6].split()[1]}
    assert own <= segments()
    return own


@each_own
@pytest.mark.parametrize("end", ["stopped", "killed", "interrupted"])
def test_nothing_is_left_after_a_server(own: Own, end: str) -> None:
    pids: list[int] = []
    directory = Path()
    shared: set[str] = set()

    def use() -> None:
        nonlocal pids, directory, shared
        with own() as server:
            pids, directory, shared = server.pids, server.process.directory, own_segments(server)
            assert is_alive(pids[0])  # a child may end by itself
            if end == "killed":
                server.kill()
            elif end == "interrupted":
                os.kill(os.getpid(), signal.SIGINT)

    if end == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            use()
    else:
        use()
    assert not any(map(is_alive, pids))
    assert not directory.exists()
    assert not shared & segments()


@pytest.mark.usefixtures("pgbouncer18", "mariadb_server")  # skipped where one is missing
def test_nothing_is_left_of_a_server_whose_process_is_killed() -> None:
    script = """if True:
        import os
        from support.servers import mariadb, pgbouncer, postgres
        with postgres(18) as a, mariadb() as b, pgbouncer(a) as c:
            print(*a.pids, *b.pids, *c.pids, a.process.directory.parent, flush=True)
            os.kill(os.getpid(), 9)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    *pids, place = done.stdout.split()
    assert len(pids) > 5
    assert wait_until(lambda: not any(is_alive(int(pid)) for pid in pids), 20)
    assert wait_until(lambda: not Path(place).exists(), 20)


# -- what does not start -----------------------------------------------------------------------


def test_a_server_that_does_not_start_shows_its_log(postgres18: PostgreSQL) -> None:
    before = set(home().iterdir())
    with (
        pytest.raises(ServerError, match="no_such_thing"),
        postgres(18, settings=["no_such_thing=1"]),
    ):
        pass
    with pytest.raises(ServerError, match="no-such-thing"), mariadb(settings=["--no-such-thing"]):
        pass
    with (
        pytest.raises(ServerError, match="no_such_mode"),
        pgbouncer(postgres18, settings=["pool_mode=no_such_mode"]),
    ):
        pass
    assert {place for place in home().iterdir() if "template" not in place.name} <= before


def test_a_server_that_is_never_ready_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server_process, "START_S", 0.1)
    monkeypatch.setattr(server_process, "identity", dict)  # nobody cannot enter tmp_path

    def command(_: int) -> list[str]:
        return ["/bin/sh", "-c", "sleep 99; exit"]

    def is_ready(_: int, __: int) -> bool:
        return False

    process = ServerProcess(tmp_path, command, is_ready, signal.SIGTERM)
    with pytest.raises(ServerError, match="did not start"):
        process.start()
    assert not is_alive(process.pid)


def test_a_missing_server_skips_a_test_and_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(ci: str) -> type[BaseException]:
        monkeypatch.setenv("CI", ci)
        with pytest.raises((pytest.skip.Exception, pytest.fail.Exception)) as found:
            program("no-such-server", "package")
        assert "install Debian's package" in str(found.value)
        return found.type

    assert outcome("") is pytest.skip.Exception
    assert outcome("true") is pytest.fail.Exception


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else is hidden from nobody")
def test_a_program_that_nobody_may_run_is_copied(tmp_path: Path) -> None:
    install = tmp_path / "install"  # pytest's directories are closed to others
    install.mkdir(mode=0o700)
    (install / "tool").write_text("#!/bin/sh\necho 7\n")
    (install / "tool").chmod(0o700)
    copy = readable(install, "tool")
    assert copy != install
    assert run(copy, copy / "tool", as_server=True) == "7"
    assert readable(Path("/usr/bin"), "env") == Path("/usr/bin")
