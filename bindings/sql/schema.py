"""The tables of a store: their version, and the steps from one version to the next.

A table `amberdb_schema` has a row for each store of a database: the name of its table, and the
version of its form. Step n makes version n + 1 out of version n, the first one out of nothing.

Invariants:
- The version is written last. MySQL commits each CREATE at once, so a step may be run again from
  its middle: it creates what is missing.
- Of several processes that begin at once, one runs the steps.
- A user who may not create tables can use those that are there.
- A table of that name that has other columns is not touched.
"""

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy import exc

from amberdb.sql.columns import is_mysql
from amberdb.sql.connections import transaction
from amberdb.sql.errors import Cause, SqlConfigError, SqlSchemaError, cause_of

Step: TypeAlias = Callable[[sa.Connection], None]

NAME_CHARACTERS_MAX: Final = 48
"""Of a table; those of its indexes are longer, and end at 63."""
LOCK_S: Final = 60

_TABLE_NAME: Final = re.compile(f"[a-z][a-z0-9_]{{0,{NAME_CHARACTERS_MAX - 1}}}")
_VERSIONS: Final = sa.Table(
    "amberdb_schema",
    sa.MetaData(),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
)
_OLDEST: Final = {
    "sqlite": (3, 35),
    "postgresql": (13,),
    "mysql": (8, 0, 17),  # the first with utf8mb4_0900_bin
    "mariadb": (10, 5),
}


def checked_table_name(name: object) -> str:
    """The name of a table. Raises SqlConfigError."""
    if isinstance(name, str) and _TABLE_NAME.fullmatch(name):
        return name
    raise SqlConfigError(
        f"the name of a table has up to {NAME_CHARACTERS_MAX} letters a to z, digits and _, and "
        f"begins with a letter, not {name!r}"
    )


def prepare(connection: sa.Connection, table: sa.Table, steps: Sequence[Step]) -> None:
    """Brings a table to the newest version. Raises SqlSchemaError."""
    _check_server(connection)
    version = _version(connection, table.name)
    _check_version(version, table, steps)
    if version < len(steps):
        with _alone(connection):
            version = _version(connection, table.name)
            _check_version(version, table, steps)
            if not version:
                _check_foreign(connection, table)
            _VERSIONS.create(connection, checkfirst=True)
            for step in steps[version:]:
                step(connection)
            _write_version(connection, table.name, len(steps))


def _check_server(connection: sa.Connection) -> None:
    dialect = connection.dialect
    is_mariadb = getattr(dialect, "is_mariadb", False)
    name = "mariadb" if is_mariadb else dialect.name
    oldest, found = _OLDEST[name], dialect.server_version_info
    if found is not None and tuple(found[: len(oldest)]) < oldest:
        raise SqlSchemaError(
            f"the server is {name} {'.'.join(map(str, found))}, and {'.'.join(map(str, oldest))} "
            "is the oldest that this store can use: upgrade the server"
        )


def _version(connection: sa.Connection, name: str) -> int:
    """The version of a table; 0 where it was not made yet."""
    if not sa.inspect(connection).has_table(_VERSIONS.name):
        return 0
    select = sa.select(_VERSIONS.c.version).where(_VERSIONS.c.name == name)
    try:
        version: object = connection.execute(select).scalar() or 0
    except exc.DBAPIError as error:
        if cause_of(error) is not Cause.SCHEMA:
            raise
        version = None
    if isinstance(version, int):
        return version
    raise SqlSchemaError(
        f"the table {_VERSIONS.name} is of another program: give the stores a database of their own"
    )


def _check_version(version: int, table: sa.Table, steps: Sequence[Step]) -> None:
    if version > len(steps):
        raise SqlSchemaError(
            f"the table {table.name} has version {version}, and this program knows up to "
            f"{len(steps)}: use the newer program"
        )


def _check_foreign(connection: sa.Connection, table: sa.Table) -> None:
    """Raises SqlSchemaError when a table of that name has other columns."""
    inspector = sa.inspect(connection)
    if inspector.has_table(table.name):
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        key = inspector.get_pk_constraint(table.name)["constrained_columns"]
        if not columns >= set(table.columns.keys()) or key != ["position"]:
            raise SqlSchemaError(
                f"the table {table.name} is of another program, or has lost its key: give the "
                "store another name"
            )


def _write_version(connection: sa.Connection, name: str, version: int) -> None:
    own = _VERSIONS.c.name == name
    if connection.execute(sa.select(_VERSIONS.c.version).where(own)).first() is None:
        connection.execute(sa.insert(_VERSIONS).values(name=name, version=version))
    else:
        connection.execute(sa.update(_VERSIONS).where(own).values(version=version))


@contextmanager
def _alone(connection: sa.Connection) -> Generator[None]:
    """Keeps other processes out. A lock of a session would stay behind in a pooler, so PostgreSQL's
    is one of the transaction."""
    if is_mysql(connection.dialect):
        name = sa.literal("amberdb_schema")
        got = connection.execute(sa.select(sa.func.get_lock(name, LOCK_S))).scalar()
        if got != 1:
            raise SqlSchemaError(f"another program has changed tables for {LOCK_S} s: try again")
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.release_lock(name)))
        return
    with transaction(connection):
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(crc32(b"amberdb_schema"))))
        yield
