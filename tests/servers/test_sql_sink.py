"""The sink of chat turns on real servers: its contract, a turn that the server refuses, a server
that is killed under a buffer, and what Supabase has besides PostgreSQL."""

import itertools
from typing import Final, cast

import pytest

from amberdb import Document
from amberdb.chat import ChatBuffer, Sink
from amberdb.chat.contract import SinkContract, ids, turn
from amberdb.sql import SqlAccessError, SqlSink, SqlUnreachableError
from support.databases import OpenDatabase
from support.servers import MariaDB, PgBouncer, PostgreSQL, mariadb, postgres

_names: Final = itertools.count(1)
_databases: Final[dict[int, str]] = {}


def database(server: PostgreSQL | MariaDB | PgBouncer) -> str:
    """One for all tests of a server; each has tables of its own."""
    if server.port not in _databases:
        _databases[server.port] = server.new_database()
    return _databases[server.port]


class OnServer(SinkContract):
    url: str

    def make(self) -> Sink:
        return SqlSink(self.url, table=f"turns{next(_names)}")

    def poisoned(self, number: int) -> Document | None:
        return turn(number, conversation_id="c" * 500)


class TestPostgres(OnServer):
    @pytest.fixture(autouse=True)
    def _server(self, postgres18: PostgreSQL) -> None:
        self.url = postgres18.url("postgresql+psycopg", database(postgres18))


class TestPostgres16(OnServer):
    @pytest.fixture(autouse=True)
    def _server(self, postgres16: PostgreSQL) -> None:
        self.url = postgres16.url("postgresql", database(postgres16))


class TestMariaDB(OnServer):
    @pytest.fixture(autouse=True)
    def _server(self, mariadb_server: MariaDB) -> None:
        self.url = mariadb_server.url("mysql+pymysql", database(mariadb_server))


class TestThroughPgBouncer(OnServer):
    @pytest.fixture(autouse=True)
    def _server(self, pgbouncer18: PgBouncer) -> None:
        url = pgbouncer18.url("postgresql+psycopg", database(pgbouncer18))
        self.url = f"{url}?prepared_statements=false"


REFUSAL: Final = {
    "postgres18": "ALTER TABLE turns ADD CHECK (user_message <> 'poison')",
    "mariadb_server": "ALTER TABLE turns ADD CHECK (user_message <> 'poison')",
}


@pytest.mark.parametrize("server", REFUSAL)
def test_a_turn_that_the_server_refuses_is_named(
    request: pytest.FixtureRequest, server: str
) -> None:
    at = cast(PostgreSQL | MariaDB, request.getfixturevalue(server))
    name = at.new_database()
    driver = "postgresql+psycopg" if server == "postgres18" else "mysql+pymysql"
    sink = SqlSink(at.url(driver, name), table="turns")
    sink.store([turn(0)])
    at.execute(REFUSAL[server], name)
    batch = [turn(number) for number in range(100)]
    batch[7] = turn(7, user_message="poison")
    batch[99] = turn(99, user_message="poison")
    refused = sink.store(batch)
    assert list(refused) == ["turn_7", "turn_99"]
    assert all("refuses a value" in reason for reason in refused.values())
    assert all("poison" not in reason.replace("'poison'", "") for reason in refused.values())
    assert len(list(sink.turns())) == 98
    sink.close()


def _check_buffer(open_db: OpenDatabase, server: PostgreSQL | MariaDB, driver: str) -> None:
    sink = SqlSink(server.url(driver, server.new_database()))
    buffer = ChatBuffer(open_db(), sink)
    said: list[str] = []

    def say(count: int) -> None:
        for _ in range(count):
            said.append(f"words {len(said)}")
            buffer.save_chat(said[-1], "\u597d\u7684", "conv", "user")

    say(150)
    assert buffer.flush(batch_size=100)["flushed_count"] == 150
    say(50)
    server.kill()
    flushed = buffer.flush(batch_size=20)
    assert (flushed["flushed_count"], flushed["failed_count"]) == (0, 50)
    with pytest.raises(SqlUnreachableError, match="try again"):
        sink.load("conv", 1, None)
    assert buffer.get_stats()["dead_letter_count"] == 0
    server.restart()
    say(50)
    assert buffer.flush(batch_size=30)["failed_count"] == 0
    stored = list(sink.turns())
    assert [each["user_message"] for each in stored] == said
    assert len(set(ids(stored))) == 250
    found = buffer.search("words", limit=300)
    assert found.is_complete
    assert len(found) == 250
    assert buffer.delete_user("user")["sink_deleted"] == 250
    assert list(sink.turns()) == []
    sink.close()


def test_a_buffer_over_postgresql_that_is_killed(open_db: OpenDatabase) -> None:
    with postgres(18) as server:
        _check_buffer(open_db, server, "postgresql+psycopg")


def test_a_buffer_over_mariadb_that_is_killed(open_db: OpenDatabase) -> None:
    with mariadb() as server:
        _check_buffer(open_db, server, "mysql+pymysql")


def test_a_buffer_is_made_while_the_server_is_down(open_db: OpenDatabase) -> None:
    with postgres(18) as server:
        url = server.url("postgresql+psycopg", server.new_database())
        server.kill()
        sink = SqlSink(url)
        buffer = ChatBuffer(open_db(), sink)
        buffer.save_chat("words", "more", "conv", "user")
        assert buffer.flush()["failed_count"] == 1
        server.restart()
        assert buffer.flush()["flushed_count"] == 1
        sink.close()


def test_a_wrong_password_is_told_and_nothing_is_refused(
    open_db: OpenDatabase, postgres18: PostgreSQL
) -> None:
    url = postgres18.url("postgresql+psycopg", database(postgres18), password="wr0ng")
    sink = SqlSink(url)
    buffer = ChatBuffer(open_db(), sink)
    for _ in range(10):
        buffer.save_chat("words", "more", "conv", "user")
        assert buffer.flush()["flushed_count"] == 0
    stats = buffer.get_stats()
    assert stats["dead_letter_count"] == 0
    assert "denies access" in str(stats["last_error"])
    assert "wr0ng" not in str(stats["last_error"])
    with pytest.raises(SqlAccessError):
        sink.load("conv", 1, None)


def test_on_supabase_the_public_key_reads_nothing(postgres18: PostgreSQL) -> None:
    name = postgres18.new_database()
    postgres18.execute("CREATE ROLE anon")
    try:
        postgres18.execute(
            "ALTER DEFAULT PRIVILEGES FOR ROLE amber IN SCHEMA public GRANT ALL ON TABLES TO anon",
            name,
        )
        sink = SqlSink(postgres18.url("postgresql+psycopg", name))
        assert not sink.store([turn(0)])
        assert ids(sink.load("conversation 0", 5, None)) == ["turn_0"]
        seen = postgres18.execute("SET ROLE anon; SELECT count(*) FROM chat_archive", name)
        assert seen.split() == ["0"]
        sink.close()
    finally:
        postgres18.execute("DROP OWNED BY anon", name)
        postgres18.execute("DROP ROLE anon")
