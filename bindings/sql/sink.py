"""A sink of chat turns in SQLite, MySQL, MariaDB or PostgreSQL, and so in Supabase.

    ChatBuffer(db, SqlSink("postgresql://user:password@host/database"))

The columns are position, id, conversation_id, user_id, place, created_at, user_message,
assistant_message, turn (the other fields) and words (full_text.py). `place` is the position of the
turn in its conversation; `position` is the key of the row.

Invariants:
- A batch is one transaction. When the server refuses a turn of it, the turns are stored one by one,
  each in a savepoint: those that are refused are named, and the others are stored.
- A turn is there once: stored again, it replaces the old one.
- The table is made by the first call, so a buffer can be made while the server is down.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Final, TypeVar, final

import sqlalchemy as sa

from amberdb import Document, InvalidDocumentError, QueryError
from amberdb._shared.queries import having, of_one
from amberdb._shared.words import Words
from amberdb.chat.turns import id_of, place, time_of
from amberdb.sql.address import address_of
from amberdb.sql.columns import NAME_CHARACTERS_MAX, Json, LongText, Moment, Name
from amberdb.sql.connections import Connections, Work, transaction
from amberdb.sql.errors import Cause, cause_of
from amberdb.sql.full_text import AnySelect, asked_words, indexed_words, matching, query_text
from amberdb.sql.schema import checked_table_name, prepare
from amberdb.sql.tables import TABLES_MAX, keyed_table, lock_ids, steps_of, upsert

TABLE: Final = "chat_archive"
PAGE: Final = 500
_NAMES: Final = ("id", "conversation_id", "user_id")
_TEXTS: Final = ("user_message", "assistant_message")
_T = TypeVar("_T")


@lru_cache(maxsize=TABLES_MAX)
def turn_table(name: str) -> sa.Table:
    """The table of a sink."""
    table = keyed_table(
        name,
        sa.Column("id", Name, nullable=False),
        sa.Column("conversation_id", Name, nullable=False),
        sa.Column("user_id", Name, nullable=False),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("user_message", LongText),
        sa.Column("assistant_message", LongText),
        sa.Column("turn", Json, nullable=False),
    )
    for column in (table.c.conversation_id, table.c.user_id):
        sa.Index(f"{name}_{column.name}", column, table.c.place)
    return table


@final
class SqlSink:
    """A table of chat turns. Raises SqlConfigError, SqlDriverError; its methods SqlError.

    url    "sqlite:///file", "mysql://user:password@host/database" or "postgresql://...", for
           Supabase the connection string of its dashboard: direct, of the session pooler, or of the
           transaction pooler, port 6543
    table  its name

    It uses the drivers psycopg and pymysql, whichever driver the URL names.
    """

    def __init__(self, url: str, *, table: str = TABLE) -> None:
        address = address_of(url, ("sqlite", "mysql", "postgresql"), blocking=True)
        self._table = turn_table(checked_table_name(table))
        self._connections = Connections(address)
        self._mutex = threading.Lock()
        self._is_prepared = False
        columns = self._table.c
        self._read = sa.select(columns.turn, columns.user_message, columns.assistant_message)

    def store(self, turns: Sequence[Document]) -> Mapping[str, str]:
        """Stores turns; for those that are refused, id -> reason."""
        refused: dict[str, str] = {}
        rows: dict[str, dict[str, Any]] = {}
        for turn in turns:
            try:
                rows[id_of(turn)] = _row(turn)
            except InvalidDocumentError as error:
                refused[id_of(turn)] = str(error)
        if rows:
            refused |= self._run(partial(self._store, list(rows.values())))
        return refused

    def load(self, conversation_id: str, limit: int, before: datetime | None) -> Sequence[Document]:
        """The last turns of a conversation, the newest first."""
        columns = self._table.c
        of = of_one(conversation_id=conversation_id)
        select = self._read.where(columns.conversation_id == of["conversation_id"])
        if before is not None:
            select = select.where(columns.created_at <= before)
        order = columns.place.desc(), columns.created_at.desc(), columns.position.desc()
        select = select.order_by(*order).limit(limit)
        return list(map(_turn, self._mappings(select)))

    def turns(
        self, *, conversation_id: str | None = None, user_id: str | None = None
    ) -> Iterator[Document]:
        """All turns of a conversation, of a user, or of both, in the order of their places."""
        columns = self._table.c
        where = having(conversation_id=conversation_id, user_id=user_id)
        select = self._read.add_columns(columns.place, columns.position).where(
            *(columns[name] == value for name, value in where.items())
        )
        select = select.order_by(columns.place, columns.position).limit(PAGE)
        page = self._mappings(select)
        while True:
            yield from map(_turn, page)
            if len(page) < PAGE:
                return
            last = sa.tuple_(*(sa.literal(page[-1][name]) for name in ("place", "position")))
            page = self._mappings(select.where(sa.tuple_(columns.place, columns.position) > last))

    def delete(self, ids: Sequence[str]) -> int:
        """Deletes turns; how many there were."""
        column = self._table.c.id
        parts = [ids[start : start + PAGE] for start in range(0, len(ids), PAGE)]
        deletes = [sa.delete(self._table).where(column.in_(part)) for part in parts]

        def work(connection: sa.Connection) -> int:
            with transaction(connection):
                return sum(connection.execute(delete).rowcount for delete in deletes)

        return self._run(work)

    def search(
        self, text: str | None, query: str | None, where: Mapping[str, str], limit: int
    ) -> Sequence[tuple[float, Document]]:
        """The turns that have words of a text, those with more of them first; the score is their
        number. Raises QueryError for a `query`."""
        if query is not None:
            raise QueryError("a SqlSink has no query language: give the words to search for")
        words = asked_words(text or "")
        if not words:
            return []
        columns, kind = self._table.c, self._connections.address.kind
        plain = self._read.where(*(columns[name] == value for name, value in where.items()))
        select = matching(kind, self._table, plain)
        found = map(_turn, self._mappings(select, words=query_text(kind, words), count=limit))
        asked = Words(text or "")
        scored = [(float(asked.count_in(_texts(turn))), turn) for turn in found]
        return sorted(scored, key=lambda each: each[0], reverse=True)

    def close(self) -> None:
        """Closes all connections; a later call opens new ones."""
        self._connections.close()

    # -- inside ------------------------------------------------------------------------------

    def _run(self, work: Work[_T]) -> _T:
        with self._mutex:
            if not self._is_prepared:
                table = self._table
                self._connections.run(lambda c: prepare(c, table, steps_of(table)))
                self._is_prepared = True
        return self._connections.run(work)

    def _mappings(self, select: AnySelect, **given: Any) -> Sequence[Mapping[Any, Any]]:
        return self._run(lambda c: c.execute(select, given).mappings().all())

    def _store(self, rows: list[dict[str, Any]], connection: sa.Connection) -> dict[str, str]:
        """Stores rows; why which were refused."""
        statement = upsert(connection.dialect.name, self._table)
        try:
            with transaction(connection):
                lock_ids(connection, self._table, (row["id"] for row in rows))
                connection.execute(statement, rows)
            return {}
        except Exception as error:
            if cause_of(error) is not Cause.VALUE:
                raise
        refused: dict[str, str] = {}
        with transaction(connection):
            lock_ids(connection, self._table, (row["id"] for row in rows))
            for row in rows:
                connection.exec_driver_sql("SAVEPOINT turn")
                try:
                    connection.execute(statement, row)
                    connection.exec_driver_sql("RELEASE SAVEPOINT turn")
                except Exception as error:
                    if cause_of(error) is not Cause.VALUE:
                        raise
                    connection.exec_driver_sql("ROLLBACK TO SAVEPOINT turn")
                    refused[row["id"]] = self._connections.reason(error)
        return refused


def _row(turn: Document) -> dict[str, Any]:
    """The row of a turn. Raises InvalidDocumentError."""
    names = {"id": id_of(turn)}
    for name in _NAMES[1:]:
        names[name] = str(turn.get(name) or "")
    for name, text in names.items():
        if len(text) > NAME_CHARACTERS_MAX:
            raise InvalidDocumentError(
                f"{name} has {len(text)} characters, and {NAME_CHARACTERS_MAX} is the most that "
                "this sink takes",
                field=name,
            )
    texts = {name: turn[name] for name in _TEXTS if isinstance(turn.get(name), str)}
    return {
        **names,
        **dict.fromkeys(_TEXTS),
        **texts,
        "place": place(turn),
        "created_at": time_of(turn),
        "turn": {name: turn[name] for name in turn if name not in texts},
        "words": indexed_words(texts.values()),
    }


def _turn(row: Mapping[Any, Any]) -> Document:
    """The turn of a row."""
    turn: Document = row["turn"]
    return turn | {name: row[name] for name in _TEXTS if row[name] is not None}


def _texts(turn: Document) -> list[str]:
    return [turn[name] for name in _TEXTS if isinstance(turn.get(name), str)]
