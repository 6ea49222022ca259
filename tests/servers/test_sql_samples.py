"""The samples of the users' documents on event stores and chats that need a server, with the config
of the one and the connection strings of the other."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import pytest

from amberdb.chat import Sink
from amberdb.events import EventStore
from amberdb.sql import MySQLEventStore, PostgreSQLEventStore, ServerConfig, SqlSink
from support.agents import ask_an_agent, clear_after_seven_days, move_from_memory
from support.chats import chat_and_flush, read_what_is_no_longer_hot
from support.databases import FakeClock, OpenDatabase
from support.servers import PASSWORD, USER, MariaDB, PgBouncer, PostgreSQL


def config(server: PostgreSQL | MariaDB, database: str = "agent_memory") -> ServerConfig:
    return {
        "host": "localhost",
        "port": server.port,
        "user": USER,
        "password": PASSWORD,
        "database": database,
    }


@pytest.mark.parametrize("ask", [ask_an_agent, move_from_memory, clear_after_seven_days])
@pytest.mark.parametrize("server", ["mariadb_server", "postgres18", "postgres16"])
def test_an_agent_with_a_server(
    request: pytest.FixtureRequest,
    server: str,
    ask: Callable[[EventStore], Awaitable[None]],
) -> None:
    at = cast(PostgreSQL | MariaDB, request.getfixturevalue(server))
    make = MySQLEventStore if isinstance(at, MariaDB) else PostgreSQLEventStore
    store = make(config=config(at, at.new_database()))

    async def work() -> None:
        await ask(store)

    asyncio.run(work())


def test_the_columns_of_postgresql(postgres18: PostgreSQL) -> None:
    postgres18.execute(f"CREATE DATABASE agent_memory OWNER {USER}")
    store = PostgreSQLEventStore(config=config(postgres18))
    asyncio.run(ask_an_agent(store))
    columns = postgres18.execute(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_name = 'agent_event' ORDER BY ordinal_position",
        "agent_memory",
    )
    assert "data|jsonb" in columns
    assert "timestamp|timestamp with time zone" in columns
    assert "words|tsvector" in columns


@pytest.fixture(params=["postgres18", "pgbouncer18", "mariadb_server"])
def sink(request: pytest.FixtureRequest) -> Iterator[Sink]:
    at = cast(PostgreSQL | MariaDB | PgBouncer, request.getfixturevalue(request.param))
    options = "?pgbouncer=true" if isinstance(at, PgBouncer) else ""
    kind = "mysql" if isinstance(at, MariaDB) else "postgresql"
    sink = SqlSink(at.url(kind, at.new_database()) + options)
    yield sink
    sink.close()


def test_a_chat_is_hot_first_and_flushed_in_batches(open_db: OpenDatabase, sink: Sink) -> None:
    chat_and_flush(open_db(), sink)


def test_what_is_no_longer_hot_is_read_from_the_sink(open_db: OpenDatabase, sink: Sink) -> None:
    clock = FakeClock()
    read_what_is_no_longer_hot(open_db(clock=clock), sink, clock)
