"""A view over one transaction of the server: the engine's queries read through it.

    outside a transaction, snapshots   REPEATABLE READ: all statements see one state
    in a transaction                   locking_view.py

Invariants:
- It answers as a View of a directory with the same documents does: keys, values and their order.
  So plans, filters, orders and cursors are the engine's own.
- What narrows a view is a condition that every document meets for which its query asks.
- A scan is read in batches by key, so scans may be read side by side on one connection, and between
  two batches of one nothing is held.
"""

from collections.abc import Collection, Iterator
from copy import copy
from heapq import merge
from typing import Any, Final

from amberdb.engine.query.filter import Filter
from amberdb.engine.schema.counters import CollectionCounters
from amberdb.engine.schema.keyspace import COLLECTION_COUNTERS, META, end_of
from amberdb.engine.schema.schema import AnyIndex, Schema
from amberdb.engine.schema.search_index import RowIndex, rowid_of_key
from amberdb.engine.schema.vector_block import StoredVector
from amberdb.engine.storage.source import Get
from amberdb.engine.storage.view import View
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.postgres.catalogue import Began, Catalogue
from amberdb.postgres.connections import Connection, Connections, Rows, execute
from amberdb.postgres.narrowing import condition_of
from amberdb.postgres.search.vector_table import VectorTable
from amberdb.postgres.table import KEY, PLACE, ROWID, SIDE, VALUE, Table

BATCH: Final = 128
"""Documents of the first batch of a scan; later ones are larger, up to BATCH_MAX."""
BATCH_MAX: Final = 1024
_WIDER: Final = 4
_READ_MAX: Final = 4 * BATCH_MAX
"""Documents that scans have read and nobody has asked for yet."""
Pair = tuple[bytes, bytes]


class PostgresView(View):
    """A view of a transaction that reads."""

    __slots__ = (
        "_batch",
        "_connection",
        "_connections",
        "_ids",
        "_narrow",
        "_read",
        "_vectors",
        "catalogue",
        "marks",
    )

    locks = False
    """Whether what is read is locked."""

    def __init__(
        self,
        connections: Connections,
        connection: Connection,
        catalogue: Catalogue,
        began: Began,
    ) -> None:
        # Not that of View: there are no memtables and no LMDB.
        self._connections = connections
        self._connection = connection
        self.catalogue = catalogue
        self.catalog = catalogue.catalog
        self.lsn = began.lsn
        self.now_us = began.now_us
        self.pending = None
        self.built = frozenset[int]()
        self.get: Get = self._value
        self.marks = frozenset(began.marks)
        self._narrow: str | None = None
        self._batch = BATCH
        self._read: dict[bytes, tuple[Any, ...]] = {}
        """Rows that scans have read, by the keys of their documents."""
        self._ids: dict[int, bytes] = {}
        """Of the documents that were read by their rowids."""
        self._vectors: dict[tuple[str, int], bytes] = {}
        """Read, and to be asked for: by table and rowid."""

    def close(self) -> None:
        """Ends the transaction."""
        self._connections.give(self._connection)

    def raise_typed(self, error: BaseException) -> None:
        self._connections.reporter.raise_typed(error)

    def narrowed(self, where: Filter, limit: int | None) -> "PostgresView":
        """The view for one query alone: its filter narrows what the server sends, and its limit
        says how much is read at first."""
        view = copy(self)
        view.get = view._value
        view._read = {}
        view._narrow = condition_of(where)
        if limit is not None:
            view._batch = max(1, min(limit, BATCH))
        return view

    def is_built(self, index: AnyIndex) -> bool:
        return True  # by the declaration

    def getter_of(self, prefix: bytes) -> Get:
        return self.get

    def vectors_at(self, place: StoredVector, /) -> bytes | None:
        table, rowid = self._place(place)
        key = table.name, rowid
        if key not in self._vectors:
            self._read_vectors(table, [rowid])
        return self._vectors.pop(key, None)

    def expect_vectors(self, places: Collection[StoredVector]) -> None:
        """Reads them, in one statement for each index."""
        wanted: dict[VectorTable, list[int]] = {}
        for table, rowid in map(self._place, places):
            if (table.name, rowid) not in self._vectors:
                wanted.setdefault(table, []).append(rowid)
        for table, rowids in wanted.items():
            self._read_vectors(table, rowids)

    def scan(self, low: bytes, high: bytes, reverse: bool = False) -> Iterator[Pair]:
        prefix = low[:KEYSPACE_BYTES]
        place = self.catalogue.places.get(prefix)
        if place is None or not low < high:
            return iter(())
        table, column = place
        if table.schema.prefix == prefix:
            return self._documents(table, low, high, reverse)
        pairs = self._entries(table, column, low, high, reverse)
        if SIDE + prefix not in self.marks:
            return pairs
        sides = self._side_entries(table, low, high, reverse)
        return merge(pairs, sides, key=_first, reverse=reverse)

    def keys(self, low: bytes, high: bytes, limit: int) -> list[bytes]:
        prefix = low[:KEYSPACE_BYTES]
        place = self.catalogue.places.get(prefix)
        if place is None or not low < high or limit <= 0:
            return []
        table, column = place
        narrows = self._narrow is not None
        start, end = _inside(low, high)
        sql = table.keys(column, has_high=end is not None, narrows=narrows, limit=limit)
        keys = [prefix + row[0] for row in self._rows(sql, self._bounds(start, end))]
        if SIDE + prefix in self.marks:
            sql = table.side_keys(has_high=True, narrows=narrows, limit=limit)
            keys += [row[0] for row in self._rows(sql, self._bounds(low, high))]
            keys.sort()
        return keys[:limit]

    def prefetch(self, schema: Schema, keys: list[bytes]) -> None:
        """Reads documents that will be asked for, in one statement."""
        table = self.catalogue.table(schema)
        sql = table.points(locks=self.locks)
        rows = self._rows(sql, [[key[KEYSPACE_BYTES:] for key in keys]])
        for row in rows:
            self._note(table, row)
        for vectors in table.vectors.values():
            self._read_vectors(vectors, [row[ROWID] for row in rows])

    def prefetch_rows(
        self, schema: Schema, rowids: list[int], narrow: str | None = None
    ) -> set[int]:
        """Reads the documents with these rowids that meet a condition, in one statement; returns
        the rowids that there are. In a transaction another one may have written a document
        since its rowid was read."""
        if not rowids:
            return set()
        table = self.catalogue.table(schema)
        sql = table.points_by_rowid(narrows=narrow is not None, locks=self.locks)
        values: list[Any] = [rowids] if narrow is None else [rowids, narrow]
        rows = self._rows(sql, values)
        for row in rows:
            self._read[table.schema.prefix + row[KEY]] = row
            self._ids[row[ROWID]] = row[KEY]
            self._saw(table, row)
        return {row[ROWID] for row in rows}

    def text_rows(
        self,
        schema: Schema,
        index: RowIndex,
        terms: list[str],
        ranges: list[tuple[str, str]],
        ranged_max: int,
    ) -> list[tuple[Any, ...]]:
        """The rows of TextTable.search() for some terms, and for at most so many in ranges."""
        table = self.catalogue.table(schema)
        text = table.text(index)
        expired, values = None, list[Any]()
        if schema.expires_at is not None:
            expired = text.expired(table.name, table.columns[schema.expiry_prefix])
            values.append(_inside(schema.expiry_prefix, schema.expiry_bound(self.now_us))[1])
        values.append(terms)
        if ranges:
            values += [[low for low, _ in ranges], [high for _, high in ranges], ranged_max]
        return self._rows(text.search(expired=expired, has_ranges=bool(ranges)), values)

    def query(self, sql: str, values: list[Any]) -> Rows:
        """The rows of a statement that reads search indexes."""
        return self._rows(sql, values)

    def live_rows(self, schema: Schema) -> tuple[str, list[Any]]:
        """The condition that a rowid of a search index meets unless its document has expired, and
        its values."""
        if schema.expires_at is None:
            return "TRUE", []
        table = self.catalogue.table(schema)
        column = table.columns[schema.expiry_prefix]
        bound = _inside(schema.expiry_prefix, schema.expiry_bound(self.now_us))[1]
        sql = f"rowid NOT IN (SELECT d.rowid FROM {table.name} d WHERE d.{column} < %s)"
        return sql, [bound]

    def keys_beside(
        self, key: bytes, low: bytes, high: bytes, count: int
    ) -> tuple[list[bytes], list[bytes]] | None:
        return None  # two statements; keys() is one

    def sizes(self) -> tuple[int, dict[str, int]]:
        """The bytes of all tables, and the number of documents by collection."""
        total, counts = 0, dict[str, int]()
        for table in self.catalogue.tables.values():
            sizes = " + ".join(f"pg_total_relation_size('{name}')" for name in table.names)
            row = self._one(f"SELECT {sizes}, (SELECT count(*) FROM {table.name})", None)
            assert row is not None
            total += row[0]
            counts[table.schema.name] = row[1]
        return total, counts

    # -- inside ------------------------------------------------------------------------------

    def _place(self, place: StoredVector) -> tuple[VectorTable, int]:
        return self.catalogue.split[place[:KEYSPACE_BYTES]].vector_table(place)

    def _read_vectors(self, table: VectorTable, rowids: list[int]) -> None:
        if len(self._vectors) >= _READ_MAX:
            self._vectors.clear()
        found = table.read(self._connection, rowids)
        self._vectors.update({(table.name, rowid): numbers for rowid, numbers in found.items()})

    def _value(self, key: bytes, /) -> bytes | None:
        prefix = key[:KEYSPACE_BYTES]
        table = self.catalogue.tables.get(prefix)
        if table is None:
            return self._fact(key) if prefix == META else self._entry(prefix, key)
        row = self._read.pop(key, None)
        if row is None:
            row = self._stored(table, key)
        return None if row is None else table.value(row)

    def _stored(self, table: Table, key: bytes) -> tuple[Any, ...] | None:
        return self._one(table.point(locks=self.locks), [key[KEYSPACE_BYTES:]])

    def _entry(self, prefix: bytes, key: bytes) -> bytes | None:
        """The id in an entry of an index."""
        table = self.catalogue.rows.get(prefix)
        if table is not None:
            rowid = rowid_of_key(key)
            if rowid not in self._ids:
                self.prefetch_rows(table.schema, [rowid])
            return self._ids.get(rowid)
        table, column = self.catalogue.places[prefix]
        sql = f"SELECT d.key FROM {table.name} d WHERE d.{column} = %s"
        row = self._one(sql, [key[KEYSPACE_BYTES:]])
        if row is None and SIDE + prefix in self.marks:
            row = self._one(f"SELECT value FROM {table.entries} WHERE entry = %s", [key])
        return None if row is None else row[0]

    def _fact(self, key: bytes) -> bytes | None:
        if not key.startswith(COLLECTION_COUNTERS):
            return b"1" if key in self.marks else None
        number = int.from_bytes(key[len(COLLECTION_COUNTERS) :])
        for table in self.catalogue.tables.values():
            if table.schema.definition.number == number:
                row = self._one(f"SELECT count(*) FROM {table.name}", None)
                assert row is not None
                return CollectionCounters(row[0], self._next_rowid).pack()
        return None

    @property
    def _next_rowid(self) -> int:
        """No document that is there has it, or a larger one."""
        return self.lsn + 1

    def _documents(self, table: Table, low: bytes, high: bytes, reverse: bool) -> Iterator[Pair]:
        prefix = table.schema.prefix
        for row in self._scanned(table, "key", low, high, reverse):
            self._saw(table, row)
            yield prefix + row[KEY], table.value(row)

    def _entries(
        self, table: Table, column: str, low: bytes, high: bytes, reverse: bool
    ) -> Iterator[Pair]:
        prefix = low[:KEYSPACE_BYTES]
        for row in self._scanned(table, column, low, high, reverse):
            self._note(table, row)
            yield prefix + row[PLACE], row[KEY]

    def _scanned(
        self, table: Table, column: str, low: bytes, high: bytes, reverse: bool
    ) -> Iterator[tuple[Any, ...]]:
        start, end = _inside(low, high)
        narrows, size = self._narrow is not None, self._batch
        while True:
            sql = table.scan(
                column,
                has_high=end is not None,
                reverse=reverse,
                narrows=narrows,
                locks=self.locks,
                limit=size,
            )
            rows = self._rows(sql, self._bounds(start, end))
            yield from rows
            if len(rows) < size:
                return
            if reverse:
                end = rows[-1][PLACE]
            else:
                start = rows[-1][PLACE] + b"\0"
            size = min(size * _WIDER, BATCH_MAX)

    def _side_entries(self, table: Table, low: bytes, high: bytes, reverse: bool) -> Iterator[Pair]:
        narrows, size = self._narrow is not None, self._batch
        while True:
            sql = table.side_scan(
                has_high=True, reverse=reverse, narrows=narrows, locks=self.locks, limit=size
            )
            rows = self._rows(sql, self._bounds(low, high))
            for row in rows:
                self._note(table, row)
                yield row[PLACE], row[VALUE]
            if len(rows) < size:
                return
            if reverse:
                high = rows[-1][PLACE]
            else:
                low = rows[-1][PLACE] + b"\0"
            size = min(size * _WIDER, BATCH_MAX)

    def _note(self, table: Table, row: tuple[Any, ...]) -> None:
        """Keeps a row until its document is asked for."""
        if len(self._read) >= _READ_MAX:
            self._read.clear()
        self._read[table.schema.prefix + row[KEY]] = row
        self._saw(table, row)

    def _saw(self, table: Table, row: tuple[Any, ...]) -> None:
        """Takes in that a row was read."""

    def _bounds(self, start: bytes, end: bytes | None) -> list[Any]:
        bounds: list[Any] = [start] if end is None else [start, end]
        return bounds if self._narrow is None else [*bounds, self._narrow]

    def _rows(self, sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
        return execute(self._connection, sql, values, binary=True).fetchall()

    def _one(self, sql: str, values: list[Any] | None) -> tuple[Any, ...] | None:
        return execute(self._connection, sql, values, binary=True).fetchone()


def of_server(view: View) -> PostgresView:
    """The view, which is one of a server."""
    assert isinstance(view, PostgresView)
    return view


def _first(pair: Pair) -> bytes:
    return pair[0]


def _inside(low: bytes, high: bytes) -> tuple[bytes, bytes | None]:
    """A range of one keyspace as the bounds of a column."""
    prefix = low[:KEYSPACE_BYTES]
    end = None if high >= end_of(prefix) else high[KEYSPACE_BYTES:]
    return low[KEYSPACE_BYTES:], end
