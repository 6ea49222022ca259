"""Tables of stores: a key that the server counts, an id, and the words that are searched.

Invariants:
- A row is there once for each id: stored again, it replaces the old one and gets a new position.
- Transactions that store rows of the same ids lock the ids in one order, so that in PostgreSQL none
  waits for another in a circle. MySQL has no such lock: there a transaction that met another is run
  again.
- On Supabase a new table has row level security: without it everybody who has the public key of the
  project could read it. Its owner reads and writes as before.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from amberdb.sql.full_text import IndexedWords, add_index, sqlite_index
from amberdb.sql.schema import Step

TABLES_MAX: Final = 16
STATEMENTS_MAX: Final = 64
"""The tables and statements that are kept: stores of one name share them, however many a program
makes."""

_SUPABASE_ROLE: Final = "anon"
_LOCKS: Final = 64
"""Advisory locks of a table, each of the ids with one hash: one for each id would fill the server's
memory for locks, and a row that is not there yet cannot be locked itself."""
_LOCK: Final = sa.text(
    "SELECT pg_advisory_xact_lock(:name, slot) FROM unnest(CAST(:slots AS int[])) AS slot"
).bindparams(sa.bindparam("name", type_=sa.Integer))


def keyed_table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    """A table of these columns, of which the first is the id, with `position` and `words`."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    table = sa.Table(
        name,
        sa.MetaData(),
        sa.Column("position", key, sa.Identity(), primary_key=True, autoincrement=True),
        *columns,
        sa.Column("words", IndexedWords, nullable=False),
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        sqlite_autoincrement=True,
    )
    sa.Index(f"{name}_id", columns[0], unique=True)
    add_index(table)
    return table


def steps_of(table: sa.Table) -> list[Step]:
    """The steps of schema.prepare()."""

    def first(connection: sa.Connection) -> None:
        table.create(connection, checkfirst=True)
        for index in table.indexes:  # MySQL has them in statements of their own
            index.create(connection, checkfirst=True)
        kind = connection.dialect.name
        if kind == "sqlite":
            for statement in sqlite_index(table):
                connection.exec_driver_sql(statement)
        elif kind == "postgresql" and _is_supabase(connection):
            connection.exec_driver_sql(f'ALTER TABLE "{table.name}" ENABLE ROW LEVEL SECURITY')

    return [first]


def _is_supabase(connection: sa.Connection) -> bool:
    roles = sa.table("pg_roles", sa.column("rolname"))
    select = sa.select(roles.c.rolname).where(roles.c.rolname == _SUPABASE_ROLE)
    return connection.execute(select).first() is not None


@lru_cache(maxsize=TABLES_MAX)
def upsert(dialect: str, table: sa.Table) -> Any:
    """A statement that stores a row as the newest, also where its id is there already."""
    columns = [column for column in table.c if column is not table.c.position]
    if dialect == "postgresql":
        key = columns[0]
        insert = postgresql.insert(table)
        replaced = {each.name: insert.excluded[each.name] for each in table.c if each is not key}
        return insert.inline().on_conflict_do_update(index_elements=[key], set_=replaced)
    if dialect == "sqlite":
        return sa.insert(table).inline().prefix_with("OR REPLACE")
    names = ", ".join(f"`{column.name}`" for column in columns)
    values = ", ".join(f":{column.name}" for column in columns)
    text = sa.text(f"REPLACE INTO `{table.name}` ({names}) VALUES ({values})")
    return text.bindparams(*(sa.bindparam(column.name, type_=column.type) for column in columns))


def lock_ids(connection: sa.Connection, table: sa.Table, ids: Iterable[str]) -> None:
    """Waits until no other transaction stores rows of these ids, stored already or not, and keeps
    others out until this one ends."""
    if connection.dialect.name != "postgresql":
        return
    slots = {crc32(id.encode(errors="surrogatepass")) % _LOCKS for id in ids}
    name = crc32(table.name.encode()) - (1 << 31)
    connection.execute(_LOCK, {"name": name, "slots": sorted(slots)})
