"""The samples of the users' document on event stores that need a server, with its configs."""

import asyncio

from amberdb.sql import MySQLEventStore, PostgreSQLEventStore, ServerConfig
from support.agents import ask_an_agent
from support.servers import PASSWORD, USER, MariaDB, PostgreSQL


def config(server: PostgreSQL | MariaDB) -> ServerConfig:
    server.execute(f"CREATE DATABASE agent_memory{' OWNER amber' * isinstance(server, PostgreSQL)}")
    return {
        "host": "localhost",
        "port": server.port,
        "user": USER,
        "password": PASSWORD,
        "database": "agent_memory",
    }


def test_an_agent_with_mysql(mariadb_server: MariaDB) -> None:
    asyncio.run(ask_an_agent(MySQLEventStore(config=config(mariadb_server))))


def test_an_agent_with_postgresql(postgres18: PostgreSQL) -> None:
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
