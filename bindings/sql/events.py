"""Stores of agent events in SQLite, MySQL, MariaDB and PostgreSQL.

    SQLiteEventStore("agent_memory.db")
    MySQLEventStore("mysql://user:password@host/agent_memory")
    PostgreSQLEventStore(config={"host": "localhost", "database": "agent_memory"})

Invariants:
- An event is there once: stored again, it replaces the old one and is the newest.
- store_many() stores all events or none.
"""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Unpack, final

import sqlalchemy as sa

from amberdb.events import AgentEvent, EventStore, EventType, FilterFields, Filters, Stats
from amberdb.events.store import BATCH, check_counts
from amberdb.sql.address import Kind, ServerConfig, SQLiteConfig, address_of, url_of
from amberdb.sql.connections import AsyncConnections, transaction
from amberdb.sql.errors import SqlConfigError
from amberdb.sql.event_table import (
    conditions,
    event_table,
    events_of,
    row_of,
    select_after,
    select_matching,
    select_page,
    select_stats,
    select_stored,
    where,
)
from amberdb.sql.full_text import AnySelect, asked_words, query_text
from amberdb.sql.schema import checked_table_name, prepare
from amberdb.sql.tables import lock_ids, steps_of, upsert

TABLE: Final = "agent_event"
_ALL: Final = 1 << 62
"""A limit that is none."""
_TYPES: Final = frozenset(EventType)


class _SqlEventStore(EventStore):
    """The store that the three public ones are. initialize() makes the table. Raises SqlError,
    InvalidDocumentError."""

    def __init__(self, kind: Kind, url: str | sa.URL, name: str, *, wal_mode: bool = True) -> None:
        self._table = event_table(checked_table_name(name))
        self._connections = AsyncConnections(address_of(url, (kind,)), wal_mode=wal_mode)

    async def initialize(self) -> None:
        table = self._table
        await self._connections.run(lambda c: prepare(c, table, steps_of(table)))

    async def close(self) -> None:
        await self._connections.close()

    async def store(self, event: AgentEvent) -> bool:
        return await self.store_many([event]) == 1

    async def store_many(self, events: Sequence[AgentEvent]) -> int:
        newest: dict[str, AgentEvent] = {}
        for event in events:
            newest.pop(event.event_id, None)
            newest[event.event_id] = event
        stored = list(newest.values())

        def work(connection: sa.Connection) -> None:
            statement = upsert(connection.dialect.name, self._table)
            if len(stored) == 1:
                connection.execute(statement, row_of(stored[0]))
            elif stored:
                with transaction(connection):
                    lock_ids(connection, self._table, newest)
                    # In slices: the event loop goes on while the server takes one.
                    for start in range(0, len(stored), BATCH):
                        some = stored[start : start + BATCH]
                        connection.execute(statement, [row_of(event) for event in some])

        await self._connections.run(work)
        return len(events)

    async def stored(self, events: Sequence[AgentEvent]) -> list[AgentEvent]:
        ids = [event.event_id for event in events]
        found: list[AgentEvent] = []
        for start in range(0, len(ids), BATCH):
            some = {"ids": ids[start : start + BATCH]}
            found += events_of(await self._rows(select_stored(self._table), some))
        return found

    async def retrieve(
        self,
        filters: Filters | None = None,
        *,
        limit: int | None = 100,
        offset: int = 0,
        oldest_first: bool = False,
        **fields: Unpack[FilterFields],
    ) -> list[AgentEvent]:
        check_counts(limit=limit, offset=offset)
        given = conditions(Filters.of(filters, **fields))
        select = select_page(self._table, tuple(given), oldest_first=oldest_first)
        page = {"count": _ALL if limit is None else min(limit, _ALL), "offset": min(offset, _ALL)}
        return events_of(await self._rows(select, given | page))

    async def iterate(
        self,
        filters: Filters | None = None,
        *,
        batch: int = BATCH,
        **fields: Unpack[FilterFields],
    ) -> AsyncIterator[list[AgentEvent]]:
        check_counts(batch=batch)
        given = conditions(Filters.of(filters, **fields))
        select = select_after(self._table, tuple(given))
        after = -1
        while True:
            rows = await self._rows(select, given | {"after": after, "count": batch})
            if events := events_of(rows):
                yield events
            if len(rows) < batch:
                return
            after = rows[-1][0]

    async def search(
        self,
        text: str,
        filters: Filters | None = None,
        *,
        limit: int = 10,
        **fields: Unpack[FilterFields],
    ) -> list[AgentEvent]:
        """The events whose data has words of a text, the best first: as the server ranks them, and
        of equals the newest first."""
        check_counts(limit=limit)
        words, given = asked_words(text), conditions(Filters.of(filters, **fields))
        if not words:
            return []

        kind = self._connections.address.kind
        select = select_matching(kind, self._table, tuple(given))
        asked = {"words": query_text(kind, words), "count": min(limit, _ALL)}
        return events_of(await self._rows(select, given | asked))

    async def get_stats(
        self, filters: Filters | None = None, **fields: Unpack[FilterFields]
    ) -> Stats:
        given = conditions(Filters.of(filters, **fields))
        rows = await self._rows(select_stats(self._table, tuple(given)), given)
        by_type: dict[str, int] = {}
        for kind, count, _, _ in rows:
            name = EventType(kind).name if kind in _TYPES else EventType.CUSTOM.name
            by_type[name] = by_type.get(name, 0) + count
        return Stats(
            total_events=sum(by_type.values()),
            by_type=by_type,
            first_event=min((first for _, _, first, _ in rows), default=None),
            last_event=max((last for _, _, _, last in rows), default=None),
        )

    async def clear(self, filters: Filters | None = None, **fields: Unpack[FilterFields]) -> int:
        given = conditions(Filters.of(filters, **fields))
        delete = sa.delete(self._table).where(where(self._table, tuple(given)))
        return await self._connections.run(lambda c: c.execute(delete, given).rowcount)

    async def _rows(self, select: AnySelect, given: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return await self._connections.run(lambda c: c.execute(select, given).all())


@final
class SQLiteEventStore(_SqlEventStore):
    """Events in a SQLite file, or in memory. Raises SqlConfigError, SqlDriverError.

    db_path  the file, ":memory:", or a URL "sqlite:///file"
    config   in place of it: `db_path`, and `wal_mode`, which lets readers go on while one writes
    name     of the table
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str] | None = None,
        *,
        config: SQLiteConfig | None = None,
        name: str = TABLE,
    ) -> None:
        path = None if db_path is None else os.fspath(db_path)
        _check_one(path, config)
        given = config or SQLiteConfig()
        url: str | sa.URL
        if path is not None and "://" in path:
            url = path
        else:
            url = url_of("sqlite", given if path is None else SQLiteConfig(db_path=path))
        wal_mode = given.get("wal_mode", True)
        super().__init__("sqlite", url, name, wal_mode=wal_mode)


@final
class MySQLEventStore(_SqlEventStore):
    """Events in MySQL 8 or MariaDB. Raises SqlConfigError, SqlDriverError.

    url     "mysql://user:password@host:3306/database", also with a driver: "mysql+asyncmy://"
    config  in place of it: `host`, `port`, `user`, `password`, `database`
    name    of the table
    """

    def __init__(
        self, url: str | None = None, *, config: ServerConfig | None = None, name: str = TABLE
    ) -> None:
        super().__init__("mysql", _server_url("mysql", url, config), name)


@final
class PostgreSQLEventStore(_SqlEventStore):
    """Events in PostgreSQL, or in what speaks its protocol, Supabase for one. Raises
    SqlConfigError, SqlDriverError.

    url     "postgresql://user:password@host:5432/database", also with a driver:
            "postgresql+psycopg://"
    config  in place of it: `host`, `port`, `user`, `password`, `database`
    name    of the table
    """

    def __init__(
        self, url: str | None = None, *, config: ServerConfig | None = None, name: str = TABLE
    ) -> None:
        super().__init__("postgresql", _server_url("postgresql", url, config), name)


def _check_one(address: str | None, config: object) -> None:
    if address is not None and config is not None:
        raise SqlConfigError("an address and a config are given: give one of them")


def _server_url(kind: Kind, url: str | None, config: ServerConfig | None) -> str | sa.URL:
    _check_one(url, config)
    return url_of(kind, config or {}) if url is None else url
