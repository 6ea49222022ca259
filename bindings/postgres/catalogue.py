"""The catalog on the server, and the fence that keeps writers of an older one out.

    catalog  key bytea, value bytea     the entries of engine/schema/catalog.py
    marks    mark bytea                 those of ordered_index.py, and table.SIDE; never taken back
    fence    version bigint             counts the declarations; format: of all these tables
    lsn      a sequence                 versions of documents, and rowids
    begun    a function                 statement/functions.py

Invariants:
- A transaction that writes shares the lock of the fence before anything else, and a declaration has
  it alone: so it writes by the newest catalog, and that stays the newest until it ends. The lock is
  an advisory one: it has a queue, where FOR SHARE of a row lets writers pass a declaration by, and
  it writes nothing.
- Who reads has the version of the fence and the catalog from one snapshot of the server.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, final

import psycopg

from amberdb._errors import DatabaseMissingError, FormatError
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.definition import CollectionDef
from amberdb.engine.schema.migration import Upgrades
from amberdb.engine.schema.schema import Schema
from amberdb.postgres.connections import Connection, Connections, execute
from amberdb.postgres.feed.outbox import FEED, Outbox
from amberdb.postgres.json_schema import JsonSchema
from amberdb.postgres.statement.functions import (
    begun_created,
    fence_lock,
    next_lsn,
    state_of,
)
from amberdb.postgres.table import Table, lock_number

FORMAT: Final = 1
_NO_UPGRADES: Final[Upgrades] = {}


class Began(NamedTuple):
    """What a transaction has read at its beginning."""

    version: int
    now_us: int
    """The time by which expiry is judged."""
    lsn: int
    """Of a transaction that writes the one that it commits; else the last that was given."""
    marks: int
    """How many there are."""


@final
class Catalogue:
    """A catalog with its tables."""

    __slots__ = ("catalog", "database", "outbox", "places", "rows", "split", "tables", "version")

    def __init__(
        self, version: int, catalog: Catalog, database: str, *, feeds: bool = False
    ) -> None:
        self.version = version
        self.catalog = catalog
        self.outbox = Outbox(database) if feeds else None
        """Where writers leave what the change feed tells, while somebody reads it."""
        self.database = database
        """The name of its schema on the server."""
        self.tables = {
            schema.prefix: Table(database, schema) for schema in catalog.schemas.values()
        }
        """By the prefix of the documents."""
        self.places: dict[bytes, tuple[Table, str]] = {}
        """By the prefix of a keyspace: the table, and the column of its keys."""
        self.rows: dict[bytes, Table] = {}
        """By the prefix of a search index."""
        self.split: dict[bytes, Table] = {}
        """By the prefix of the vectors of the documents."""
        for prefix, table in self.tables.items():
            self.places[prefix] = table, "key"
            if table.schema.vectors:
                self.split[table.schema.vector_prefix] = table
            self.rows.update(dict.fromkeys([i.prefix for i in table.schema.row_indexes], table))
            self.places.update({each: (table, name) for each, name in table.columns.items()})

    def table(self, schema: Schema) -> Table:
        return self.tables[schema.prefix]


class Known(NamedTuple):
    """What a transaction goes by."""

    catalogue: Catalogue
    marks: frozenset[bytes]


@final
class Catalogues:
    """The newest catalog that this process knows, and how it is read."""

    def __init__(self, database: str, options: Options) -> None:
        self.database = database
        self._options = options
        self.declared: dict[int, int] = {}
        """By the number of a collection the version that this program has declared."""
        self.known = Known(Catalogue(0, Catalog({}), database), frozenset())
        """The newest."""
        clock = options.clock
        self.clock_us = None if clock is time.time else lambda: int(clock() * 1_000_000)
        """The clock that the program gave."""
        self.state = state_of(database, f'(SELECT last_value FROM "{database}".lsn)')
        """The statement that a transaction that reads begins with: a row of Began."""
        self.next_state = state_of(database, next_lsn(database))
        """The same with an Lsn of its own."""
        fence = f'LOCK TABLE "{database}".fence IN'
        self.before_snapshot = f"{fence} ROW SHARE MODE"
        """What a serializable transaction that writes begins with. Its first SELECT gives it the
        state of the server for good, also when that waits; this waits before it."""
        self.alone = (
            f"{fence} EXCLUSIVE MODE; SELECT pg_advisory_xact_lock({fence_lock(database)}); "
            f"{self.next_state}"
        )
        """Those that a declaration begins with."""

    def shared(self, wait_ms: int, *, is_durable: bool) -> str:
        """The statement that a transaction that writes begins with: a row of Began."""
        return f"SELECT * FROM \"{self.database}\".begun('{wait_ms}', {is_durable})"

    def at(self, connection: Connection, began: Began) -> Known:
        """The catalog and the marks of the transaction of the connection, which has written
        nothing yet. Raises CorruptionError, FormatError."""
        catalogue, marks = self.known
        if (catalogue.version, len(marks)) == (began.version, began.marks):
            return self.known
        if catalogue.version != began.version:
            catalogue = self.load(connection, began.version)
        known = Known(catalogue, self.load_marks(connection))
        if catalogue.version >= self.known.catalogue.version:
            self.known = known
        return known

    def load_marks(self, connection: Connection) -> frozenset[bytes]:
        """The marks that the transaction of the connection sees, its own among them."""
        found = execute(connection, f'SELECT mark FROM "{self.database}".marks').fetchall()
        return frozenset(row[0] for row in found)

    def began(self, row: Sequence[Any]) -> Began:
        """From a row of such a statement, of numbers or of their texts."""
        version, now_us, lsn, marks = map(int, row)
        return Began(version, self.now_us(now_us), lsn, marks)

    def now_us(self, server_us: int) -> int:
        """The time by which expiry is judged: that of the server, unless the program gave a
        clock."""
        return server_us if self.clock_us is None else self.clock_us()

    def schema(self, definition: CollectionDef, upgrades: Upgrades = _NO_UPGRADES) -> Schema:
        """A collection with this definition."""
        return JsonSchema(definition, self._options, upgrades)

    def load(self, connection: Connection, version: int) -> Catalogue:
        """The catalog in the transaction of the connection, of this version. Raises
        CorruptionError, FormatError."""
        statement = f'SELECT key, value FROM "{self.database}".catalog'
        entries = _Entries(execute(connection, statement).fetchall())
        catalog = Catalog.load(entries, self._options, kind=JsonSchema)
        feeds = entries.get(FEED) is not None
        return Catalogue(version, catalog, self.database, feeds=feeds)

    def open(self, connections: Connections, *, create: bool) -> None:
        """Looks for the tables, and creates them. Raises DatabaseMissingError, FormatError when a
        newer version made them, ServerAccessError."""
        name = self.database
        try:
            connection, _ = connections.begun(
                f"BEGIN; SELECT pg_advisory_xact_lock({lock_number(name.encode())})"
            )
            try:
                self._open(connection, create=create)
                connection.commit()
            finally:
                connections.give(connection)
        except psycopg.Error as error:
            raise connections.reporter.typed(error) from None

    def _open(self, connection: Connection, *, create: bool) -> None:
        name = self.database
        if self._exists(connection, f"to_regclass('\"{name}\".fence')"):
            row = execute(connection, f'SELECT format FROM "{name}".fence').fetchone()
            made = None if row is None else row[0]
            if made != FORMAT:
                raise FormatError(
                    f"the schema {name!r} on the server has format {made}, and this program knows "
                    f"{FORMAT}: use the version of AmberDB that wrote it, or another schema= in "
                    "the URL"
                )
            return
        if not create:
            raise DatabaseMissingError(
                f"there is no database in the schema {name!r}: leave create=False out to make one"
            )
        if not self._exists(connection, f"to_regnamespace('\"{name}\"')"):
            execute(connection, f'CREATE SCHEMA "{name}"')
        for statement in (
            f'CREATE TABLE "{name}".catalog (key bytea PRIMARY KEY, value bytea NOT NULL)',
            f'CREATE TABLE "{name}".marks (mark bytea PRIMARY KEY)',
            f'CREATE TABLE "{name}".fence (version bigint NOT NULL, format int NOT NULL)',
            f'CREATE SEQUENCE "{name}".lsn',
            f'INSERT INTO "{name}".fence VALUES (1, {FORMAT})',
            begun_created(name),
        ):
            execute(connection, statement)

    def _exists(self, connection: Connection, name: str) -> bool:
        row = execute(connection, f"SELECT {name} IS NOT NULL").fetchone()
        return row is not None and bool(row[0])


class _Entries:
    """The rows of the catalog, for Catalog.load()."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = dict(sorted(rows))

    def get(self, key: bytes, /) -> bytes | None:
        return self._rows.get(key)

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        return ((key, value) for key, value in self._rows.items() if low <= key < high)
