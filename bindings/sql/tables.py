"""Tables of stores: a key that the server counts, an id, and the words that are searched.

Invariants:
- A row is there once for each id: stored again, it replaces the old one and gets a new position.
- Transactions that store rows of the same ids lock them in one order, so that in PostgreSQL none
  waits for another in a circle. In MySQL such a lock is one of the gaps between rows too: there a
  transaction that met another is run again.
- On Supabase a new table has row level security: without it everybody who has the public key of the
  project could read it. Its owner reads and writes as before.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from amberdb.sql.columns import escaped
from amberdb.sql.full_text import IndexedWords, add_index, sqlite_index
from amberdb.sql.schema import Step

TABLES_MAX: Final = 16
STATEMENTS_MAX: Final = 64
"""The tables and statements that are kept: stores of one name share them, however many a program
makes."""

_SUPABASE_ROLE: Final = "anon"


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


def lock_rows(connection: sa.Connection, table: sa.Table, ids: Iterable[str]) -> None:
    """Locks the rows of these ids, inside of a transaction that will store some of them."""
    if connection.dialect.name == "postgresql":
        connection.execute(_select_locked(table), {"ids": list(map(escaped, ids))})


@lru_cache(maxsize=TABLES_MAX)
def _select_locked(table: sa.Table) -> Any:
    key = table.columns.values()[1]
    ids = sa.any_(sa.cast(sa.bindparam("ids"), postgresql.ARRAY(sa.Text)))
    return sa.select(table.c.position).where(key == ids).order_by(key).with_for_update()
