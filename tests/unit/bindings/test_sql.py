"""What SQL stores are made of: addresses, columns, JSON text, words, errors and versions of
tables."""

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import exc

from amberdb import InvalidDocumentError
from amberdb.sql import (
    SqlAccessError,
    SqlConfigError,
    SqlDriverError,
    SqlError,
    SqlSchemaError,
    SqlSink,
    SqlUnreachableError,
)
from amberdb.sql.address import Kind, address_of, url_of
from amberdb.sql.columns import escaped, unescaped
from amberdb.sql.connections import Connections, transaction
from amberdb.sql.errors import Cause, Reporter, cause_of
from amberdb.sql.full_text import WORDS_BYTES_MAX, asked_words, indexed_words, query_text
from amberdb.sql.json_text import dumps, loads
from amberdb.sql.schema import Step, checked_table_name, prepare
from amberdb.sql.tables import keyed_table, steps_of
from support.drawn import maps

ALL: tuple[Kind, ...] = ("sqlite", "mysql", "postgresql")
SECRET = "s3cret/@:"


# -- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("sqlite://", "sqlite:///:memory:"),
    ],
)
def test_a_url_names_a_file(url: str, shown: str) -> None:
    assert address_of(url, ALL).shown == shown


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgres//host/x", "no URL"),
        (f"postgresql://u:{SECRET}@host:port/x", "no URL"),
        (5, "no URL"),
        ("http://u:s3cret@host/x", "begins with http"),
        ("postgresql://u:s3@s3cret@host/x", "write %40"),
        ("mysql://u:x@s3cret@host/x", "write %40"),
        ("mysql://u:s3cret@host:99999/x", "from 1 to 65535, not 99999"),
        ("sqlite:///x?mode=ro", "unknown option 'mode'"),
        ("sqlite+pysqlite:///x", "pysqlite is no asynchronous driver"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: Any, problem: str) -> None:
    with pytest.raises(SqlConfigError, match=problem) as raised:
        address_of(url, ALL)
    assert "s3cret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_the_keys_of_configs() -> None:
    server = {"host": "h", "port": 5433, "user": "u", "password": SECRET, "database": "d"}
    url = url_of("postgresql", server)
    assert url.render_as_string(hide_password=False) == "postgresql://u:s3cret%2F%40%3A@h:5433/d"
    assert str(url_of("mysql", {})) == "mysql://root@localhost/agent_memory"
    assert address_of(url_of("sqlite", {"db_path": ":memory:"}), ALL).is_in_memory
    assert url_of("sqlite", {"wal_mode": False}).database == "agent_memory.db"
    assert url_of("sqlite", {"db_path": Path("a?b%20c.db")}).database == "a?b%20c.db"
    with pytest.raises(SqlConfigError, match="the keys are host, port"):
        url_of("mysql", {"hosts": "h"})
    with pytest.raises(SqlConfigError, match="port must be a number"):
        url_of("mysql", {"port": "3306"})
    for name in ("host", "user", "password", "database"):
        with pytest.raises(SqlConfigError, match=f"{name} must be a str") as raised:
            url_of("postgresql", {name: 8161})
        assert "8161" not in str(raised.value)
    given: Any = "postgresql://u:s3cret@host/x"
    with pytest.raises(SqlConfigError, match="a config is a map") as raised:
        url_of("postgresql", given)
    assert "s3cret" not in str(raised.value)


def _installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def find(name: str) -> bool | None:
        return name in names or None

    monkeypatch.setattr("amberdb.sql.address.find_spec", find)


def test_the_first_driver_that_is_installed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, "psycopg", "asyncmy", "pymysql")
    assert address_of("postgres://h/x", ALL).url.drivername == "postgresql+psycopg"
    assert address_of("mysql://h/x", ALL).url.drivername == "mysql+asyncmy"
    assert address_of("mariadb://h/x", ALL).url.drivername == "mysql+asyncmy"
    blocking = address_of("mysql+aiomysql://h/x", ALL, blocking=True)
    assert blocking.url.drivername == "mysql+pymysql"
    _installed(monkeypatch, "asyncpg", "psycopg")
    assert address_of("postgresql://h/x", ALL).url.drivername == "postgresql+asyncpg"
    named = address_of("postgresql+psycopg://h/x", ALL)
    assert named.url.drivername == "postgresql+psycopg"
    with pytest.raises(SqlDriverError, match="pip install aiomysql"):
        address_of("mysql://h/x", ALL)
    with pytest.raises(SqlConfigError, match="name asyncpg or psycopg"):
        address_of("postgresql+pg8000://h/x", ALL)


@pytest.mark.parametrize(
    ("url", "prepares"),
    [
        ("postgresql://postgres:p@db.abc.supabase.co:5432/postgres", True),
        ("postgresql://postgres.abc:p@aws-0-eu.pooler.supabase.com:5432/postgres", True),
        ("postgresql://postgres.abc:p@aws-0-eu.pooler.supabase.com:6543/postgres", False),
        ("postgresql://h/x?pgbouncer=true", False),
        ("postgresql://h/x?prepared_statements=false", False),
        ("postgresql://h:6543/x?prepared_statements=true", True),
    ],
)
def test_a_transaction_pooler_gets_no_prepared_statements(
    monkeypatch: pytest.MonkeyPatch, url: str, prepares: bool
) -> None:
    _installed(monkeypatch, "asyncpg", "psycopg")
    given = address_of(url, ALL).connect_args
    assert given.get("statement_cache_size", 1) == (1 if prepares else 0)
    blocking = address_of(url, ALL, blocking=True).connect_args
    assert ("prepare_threshold" not in blocking) == prepares


def test_options_of_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, "asyncpg", "psycopg", "aiomysql")
    url = "postgresql://h/x?sslmode=require&application_name=shop&host=/run/pg"
    asynchronous = address_of(url, ALL)
    assert asynchronous.connect_args["ssl"] == "require"
    assert asynchronous.connect_args["server_settings"] == {"application_name": "shop"}
    assert asynchronous.url.query == {"host": "/run/pg"}
    blocking = address_of(url, ALL, blocking=True).connect_args
    assert (blocking["sslmode"], blocking["application_name"]) == ("require", "shop")
    mysql = address_of("mysql://h/x?ssl-mode=REQUIRED&unix_socket=/run/s", ALL).connect_args
    assert mysql["unix_socket"] == "/run/s"
    assert mysql["ssl"] is not None
    assert "ssl" not in address_of("mysql://h/x?ssl-mode=DISABLED", ALL).connect_args
    with pytest.raises(SqlConfigError, match="sslmode must be one of"):
        address_of("postgresql://h/x?sslmode=yes", ALL)
    with pytest.raises(SqlConfigError, match="pgbouncer must be true or false"):
        address_of("postgresql://h/x?pgbouncer=1", ALL)
    with pytest.raises(SqlConfigError, match="cannot be read"):
        address_of("postgresql://h/x?sslmode=verify-full&sslrootcert=/nowhere", ALL)


def test_a_password_is_not_shown() -> None:
    address = address_of(f"sqlite:///{SECRET}", ("sqlite",))
    assert address.is_in_memory is False
    shown = Reporter("postgresql://u:***@h/x", ("hidden",))
    told = shown.typed(ValueError("bad: hidden\nis in here"))
    assert str(told) == "postgresql://u:***@h/x: bad: *** is in here"


# -- values --------------------------------------------------------------------------------------


@given(maps)
def test_json_text_loses_nothing(value: dict[str, Any]) -> None:
    text = dumps(value)
    assert repr(loads(text)) == repr(value)
    assert repr(loads(text.encode())) == repr(value)
    assert "\\u0000" not in text, "JSONB refuses it"


@given(maps)
def test_json_text_survives_a_column_that_has_numbers_without_exponents(
    value: dict[str, Any],
) -> None:
    # As JSONB: digits are kept, and a number without a fraction is an int from then on.
    parsed = json.loads(dumps(value), parse_float=lambda text: _Digits(text))
    written = json.dumps(parsed, default=str, ensure_ascii=False)
    written = re.sub(r'"<(.*?)>"', r"\1", written)
    assert repr(loads(written)) == repr(value)


class _Digits(str):
    """A number as JSONB writes it."""

    def __new__(cls, text: str) -> "_Digits":
        assert "e" not in text.lower()
        assert float(text) != 0 or text[0] != "-"
        return super().__new__(cls, f"<{text}>")


def test_marks_of_json_text_in_a_value_are_values() -> None:
    for value in (
        {"$amber": ["float", "1"]},
        {"$amber": 1, "b": 2},
        {"a": {"$amber": {"$amber": "\0"}}},
        {"$date": "x", "\0": [{"$float": "inf"}]},
    ):
        assert loads(dumps(value)) == value


@given(st.text(st.sampled_from("ab\0\x10@\x11")))
def test_names_may_have_any_character(text: str) -> None:
    assert unescaped(escaped(text)) == text
    assert "\0" not in escaped(text)


@given(st.lists(st.text(st.sampled_from("ab\0\x10@")), min_size=2, max_size=2, unique=True))
def test_names_that_differ_are_stored_apart(texts: list[str]) -> None:
    assert escaped(texts[0]) != escaped(texts[1])


# -- words ---------------------------------------------------------------------------------------


def test_words_are_those_of_the_analyzer() -> None:
    assert {"umbrella", "\u5f00\u4f1a", "caf\u00e9", "cafe"} <= set(
        indexed_words(["the umbrellas", "\u6211\u4eec\u5f00\u4f1a, Caf\u00e9"])
    )
    assert asked_words("\u5f00\u4f1a") == ["\u5f00\u4f1a"]
    assert asked_words(" ?!") == []


def test_words_in_the_languages_of_servers() -> None:
    words = ["it's", "a\\b", "\u5f00\u4f1a", "or", "w" * 100]
    assert query_text("postgresql", words[:3]) == "'it''s' | 'a\\\\b' | '\u5f00\u4f1a'"
    for kind, between in (("sqlite", " OR "), ("mysql", " ")):
        asked = query_text(kind, words).split(between)
        assert len(set(asked)) == 5
        assert all(each.isascii() and each.isalnum() and 4 <= len(each) <= 80 for each in asked)


def test_of_a_long_text_the_first_words_count() -> None:
    text = " ".join(f"word{number}" for number in range(100_000))
    words = indexed_words([text])
    assert "word0" in words
    assert 30_000 < len(words) < 100_000
    assert sum(map(len, words)) < WORDS_BYTES_MAX
    (digest,) = indexed_words(["x" * 3_000])
    assert len(digest) == 33
    assert asked_words("x" * 3_000) == [digest]


# -- errors --------------------------------------------------------------------------------------


def _state(code: str) -> Exception:
    error = Exception("the server's words")
    error.sqlstate = code  # type: ignore[attr-defined]
    return error


def _timeout() -> Exception:
    """As asyncio raises it."""
    error = TimeoutError()
    error.__cause__ = asyncio.CancelledError()
    return error


@pytest.mark.parametrize(
    ("error", "cause", "typed"),
    [
        (_state("08006"), Cause.UNREACHABLE, SqlUnreachableError),
        (_state("57P01"), Cause.UNREACHABLE, SqlUnreachableError),
        (_state("53300"), Cause.FULL, SqlUnreachableError),
        (_state("25006"), Cause.ACCESS, SqlAccessError),
        (Exception(1040, "Too many"), Cause.FULL, SqlUnreachableError),
        (_state("28P01"), Cause.ACCESS, SqlAccessError),
        (_state("42501"), Cause.ACCESS, SqlAccessError),
        (_state("3D000"), Cause.ACCESS, SqlAccessError),
        (_state("40P01"), Cause.CONFLICT, SqlError),
        (_state("22P05"), Cause.VALUE, InvalidDocumentError),
        (_state("23514"), Cause.VALUE, InvalidDocumentError),
        (_state("42P01"), Cause.SCHEMA, SqlSchemaError),
        (_state("XX000"), Cause.OTHER, SqlError),
        (Exception(2013, "Lost connection"), Cause.UNREACHABLE, SqlUnreachableError),
        (Exception(1045, "Access denied"), Cause.ACCESS, SqlAccessError),
        (Exception(1213, "Deadlock"), Cause.CONFLICT, SqlError),
        (Exception(1406, "Data too long"), Cause.VALUE, InvalidDocumentError),
        (Exception(1146, "no such table"), Cause.SCHEMA, SqlSchemaError),
        (ConnectionRefusedError(111, "refused"), Cause.UNREACHABLE, SqlUnreachableError),
        (_timeout(), Cause.UNREACHABLE, SqlUnreachableError),
        (RuntimeError("else"), Cause.OTHER, SqlError),
    ],
)
def test_errors_of_drivers_are_told_by_their_codes(
    error: Exception, cause: Cause, typed: type[Exception]
) -> None:
    wrapped = exc.DBAPIError("SELECT secret", {"value": "private"}, error, hide_parameters=True)
    for each in (error, wrapped):
        assert cause_of(each) is cause
        told = Reporter("x://h/d").typed(each)
        assert type(told) is typed
        assert str(told).startswith("x://h/d")
        assert "private" not in str(told)
        assert "SELECT" not in str(told)


def test_an_unreachable_server_is_a_connection_error() -> None:
    assert issubclass(SqlUnreachableError, ConnectionError)
    assert issubclass(SqlAccessError, PermissionError)
    assert issubclass(SqlConfigError, ValueError)


# -- connections and tables ----------------------------------------------------------------------


@pytest.fixture
def connections(tmp_path: Path) -> Iterator[Connections]:
    made = Connections(address_of(f"sqlite:///{tmp_path / 'a.db'}", ALL, blocking=True))
    yield made
    made.close()


TABLE = keyed_table("thing", sa.Column("id", sa.Text))


def test_work_runs_again_when_a_connection_was_lost(connections: Connections) -> None:
    calls: list[int] = []

    def work(connection: sa.Connection) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionResetError("gone")
        return "done"

    assert connections.run(work) == "done"
    calls.clear()

    def never(connection: sa.Connection) -> None:
        calls.append(1)
        raise ConnectionResetError("gone")

    with pytest.raises(SqlUnreachableError, match="try again"):
        connections.run(never)
    assert len(calls) == 2


def test_a_transaction_is_whole_or_not_there(connections: Connections) -> None:
    def half(connection: sa.Connection) -> None:
        with transaction(connection):
            connection.exec_driver_sql("CREATE TABLE half (a)")
            raise InvalidDocumentError("in the middle")

    with pytest.raises(InvalidDocumentError, match="in the middle"):
        connections.run(half)
    assert connections.run(lambda c: sa.inspect(c).get_table_names()) == []


def exec_(connection: sa.Connection, statement: str) -> None:
    connection.exec_driver_sql(statement)


def _prepare(connections: Connections, *more: str) -> None:
    def step(statement: str) -> Step:
        return lambda connection: exec_(connection, statement)

    steps = [*steps_of(TABLE), *map(step, more)]
    connections.run(lambda c: prepare(c, TABLE, steps))


def test_steps_run_once_and_an_older_program_is_told(connections: Connections) -> None:
    _prepare(connections)
    _prepare(connections)
    _prepare(connections, "ALTER TABLE thing ADD COLUMN colour TEXT")
    _prepare(connections, "ALTER TABLE thing ADD COLUMN colour TEXT")  # twice would fail
    columns = connections.run(lambda c: sa.inspect(c).get_columns("thing"))
    assert [each["name"] for each in columns] == ["position", "id", "words", "colour"]
    with pytest.raises(SqlSchemaError, match="version 2, and this program knows up to 1"):
        _prepare(connections)


def test_a_step_that_failed_runs_again(connections: Connections) -> None:
    with pytest.raises(SqlError):
        _prepare(connections, "ALTER TABLE nowhere ADD COLUMN colour TEXT")
    _prepare(connections)


def test_a_table_of_another_program_is_not_touched(connections: Connections) -> None:
    connections.run(lambda c: c.exec_driver_sql("CREATE TABLE thing (id TEXT, own TEXT)"))
    with pytest.raises(SqlSchemaError, match="another program"):
        _prepare(connections)
    assert connections.run(lambda c: sa.inspect(c).get_table_names()) == ["thing"]


def test_an_old_server_is_refused(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.sql.schema._OLDEST", {"sqlite": (99, 1)})
    with pytest.raises(SqlSchemaError, match=r"99\.1 is the oldest"):
        _prepare(connections)


def test_a_table_of_versions_of_another_program_is_told(connections: Connections) -> None:
    create = "CREATE TABLE amberdb_schema (name TEXT, version TEXT)"
    connections.run(lambda c: c.exec_driver_sql(create))
    _prepare(connections)
    connections.run(lambda c: c.exec_driver_sql("UPDATE amberdb_schema SET version = '1.0'"))
    with pytest.raises(SqlSchemaError, match="a database of their own"):
        _prepare(connections)
    connections.run(lambda c: c.exec_driver_sql("DROP TABLE amberdb_schema"))
    connections.run(lambda c: c.exec_driver_sql("CREATE TABLE amberdb_schema (id TEXT)"))
    with pytest.raises(SqlSchemaError, match="a database of their own"):
        _prepare(connections)


def test_a_table_without_its_key_is_not_used(connections: Connections) -> None:
    _prepare(connections)
    connections.run(lambda c: c.exec_driver_sql("DROP TABLE amberdb_schema"))
    _prepare(connections)
    for statement in (
        "DROP TABLE amberdb_schema",
        "CREATE TABLE copy AS SELECT * FROM thing",
        "DROP TABLE thing",
        "ALTER TABLE copy RENAME TO thing",
    ):
        connections.run(partial(exec_, statement=statement))
    with pytest.raises(SqlSchemaError, match="has lost its key"):
        _prepare(connections)


def test_a_step_that_ended_before_the_indexes_goes_on(connections: Connections) -> None:
    _prepare(connections)
    for statement in ("DROP INDEX thing_id", "DROP TABLE amberdb_schema"):
        connections.run(partial(exec_, statement=statement))
    _prepare(connections)
    indexes = connections.run(lambda c: sa.inspect(c).get_indexes("thing"))
    assert "thing_id" in [each["name"] for each in indexes]


def test_a_writer_in_the_way_is_waited_for_and_no_longer(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amberdb.sql.connections.BUSY_S", 0.2)
    calls: list[int] = []

    def work(connection: sa.Connection) -> None:
        calls.append(1)
        raise _state("40P01")

    with pytest.raises(SqlError, match="busy"):
        connections.run(work)
    assert len(calls) > 1
    monkeypatch.setattr("amberdb.sql.connections.BUSY_S", 0)
    calls.clear()
    with pytest.raises(SqlError, match="busy"):
        connections.run(work)
    assert len(calls) == 1, "a SQLite file that is locked was waited for ten times 30 s"


@pytest.mark.parametrize("name", ["", "A", "a b", "1a", "a;drop", "\u00e9", "a" * 49, None, "a\n"])
def test_names_of_tables(name: Any) -> None:
    with pytest.raises(SqlConfigError, match="the name of a table"):
        checked_table_name(name)


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"no database at all\n" * 100)
    sink = SqlSink(f"sqlite:///{path}")
    with pytest.raises(SqlError, match="file is not a database"):
        sink.load("c", 1, None)
    with pytest.raises(SqlAccessError, match="correct the path"):
        SqlSink("sqlite:////nowhere/at/all/a.db").load("c", 1, None)
    sink.close()


def test_a_table_that_was_dropped_is_told(tmp_path: Path) -> None:
    sink = SqlSink(f"sqlite:///{tmp_path / 'a.db'}")
    sink.load("c", 1, None)
    with sqlite3.connect(tmp_path / "a.db") as other:
        other.execute("DROP TABLE chat_archive")
    other.close()
    with pytest.raises(SqlSchemaError, match="no such table"):
        sink.load("c", 1, None)
    sink.close()


def test_no_other_package_loads_sqlalchemy() -> None:
    code = "import sys, amberdb, amberdb.events, amberdb.chat, amberdb.aio; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert "amberdb" in loaded
    assert not loaded & {"sqlalchemy", "aiosqlite", "greenlet", "asyncpg", "psycopg"}


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None\nimport amberdb.sql"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert 'pip install "amberdb[sql]"' in ran.stderr
