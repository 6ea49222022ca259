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

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from functools import partial
from heapq import merge
from itertools import islice
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
from amberdb.postgres.catalogue import Began, Known
from amberdb.postgres.connections import Connection, Connections, Rows, execute
from amberdb.postgres.narrowing import Narrowing
from amberdb.postgres.search.vector_table import VectorTable
from amberdb.postgres.table import (
    KEY,
    PLACE,
    ROWID,
    SIDE,
    VALUE,
    Table,
    array_of,
    expiry_bound,
)

BATCH: Final = 128
"""Documents of the first batch of a scan without a limit; later ones are larger, up to
BATCH_MAX."""
BATCH_MAX: Final = 1024
_WIDER: Final = 4
_READ_MAX: Final = 4 * BATCH_MAX
"""Documents that scans have read and nobody has asked for yet."""
_UNREAD: Final[Any] = object()
Pair = tuple[bytes, bytes]


class PostgresView(View):
    """A view of a transaction that reads."""

    __slots__ = (
        "_batch",
        "_connection",
        "_connections",
        "_ids",
        "_known",
        "_narrowing",
        "_read",
        "_vectors",
        "catalogue",
    )

    locks = False
    """Whether what is read is locked."""

    def __init__(
        self, connections: Connections, connection: Connection, known: Known, began: Began
    ) -> None:
        # Not that of View: there are no memtables and no LMDB.
        self._connection = connection
        self.lsn = began.lsn
        self.now_us = began.now_us
        self._go_by(known, connections)

    def _go_by(self, known: Known, connections: Connections) -> None:
        self._connections = connections
        self._known = known
        self.catalogue = known.catalogue
        self.catalog = self.catalogue.catalog
        self.pending = None
        self.built = frozenset[int]()
        self.get: Get = self._value
        self._narrowing: Narrowing | None = None
        self._batch = BATCH
        self._read: dict[bytes, tuple[Any, ...] | None] = {}
        """Rows that were read ahead, by the keys of their documents; None: there is none."""
        self._ids: dict[int, bytes] = {}
        """Of the documents that were read by their rowids."""
        self._vectors: dict[tuple[str, int], bytes] = {}
        """Read, and to be asked for: by table and rowid."""

    @property
    def marks(self) -> frozenset[bytes]:
        """Those that the next read has to go by."""
        return self._known.marks

    def close(self) -> None:
        """Ends the transaction."""
        self._connections.give(self._connection, has_read=True)

    def raise_typed(self, error: BaseException) -> None:
        self._connections.reporter.raise_typed(error)

    def narrowed(self, where: Filter, limit: int | None) -> "PostgresView":
        """The view for one query alone: its filter narrows what the server sends, and its limit
        says how much is read at first."""
        view = self._alike()
        view.get = view._value
        view._read = {}
        view._narrowing = Narrowing(where)
        if isinstance(limit, int):  # anything else is refused by the query
            view._batch = max(1, min(limit, BATCH_MAX))
        return view

    def is_built(self, index: AnyIndex) -> bool:
        return True  # by the declaration

    def getter_of(self, prefix: bytes) -> Get:
        read, value = self._read.pop, self._value
        stored = self.catalogue.tables[prefix].value

        def get(key: bytes, /) -> bytes | None:
            row = read(key, _UNREAD)
            if row is _UNREAD:
                return value(key)
            return None if row is None else stored(row)

        return get

    def vectors_at(self, place: StoredVector, /) -> bytes | None:
        table, rowid = self._place(place)
        key = table.name, rowid
        if key not in self._vectors:
            self._read_vectors(table, [rowid])
        return self._vectors.pop(key, None)

    def expect_vectors(self, places: Iterable[StoredVector]) -> None:
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
        sides = self._side_entries(table, column, low, high, reverse)
        return merge(pairs, sides, key=_first, reverse=reverse)

    def keys(self, low: bytes, high: bytes, limit: int) -> list[bytes]:
        prefix = low[:KEYSPACE_BYTES]
        place = self.catalogue.places.get(prefix)
        if place is None or not low < high or limit <= 0:
            return []
        table, column = place
        condition = self._condition(table, column)
        narrows = condition is not None
        start, end = _inside(low, high)
        sql = table.keys(column, has_high=end is not None, narrows=narrows, limit=limit)
        keys = [prefix + row[0] for row in self._rows(sql, _bounds(start, end, condition))]
        if SIDE + prefix in self.marks:
            sql = table.side_keys(has_high=True, narrows=narrows, limit=limit)
            keys += [row[0] for row in self._rows(sql, _bounds(low, high, condition))]
            keys.sort()
        return keys[:limit]

    def points(self, keys: Iterable[bytes]) -> Iterator[Pair]:
        waiting, size = iter(keys), BATCH_MAX if self._batch == BATCH else self._batch
        while batch := list(islice(waiting, size)):
            if len(batch) > 1:
                self._read_rows(self.catalogue.tables[batch[0][:KEYSPACE_BYTES]], batch)
            for key in batch:
                if (value := self.get(key)) is not None:
                    yield key, value
            size = min(size * _WIDER, BATCH_MAX)

    def prefetch(self, schema: Schema, keys: list[bytes]) -> None:
        """Reads documents that will be asked for, in one statement, and their vectors."""
        table = self.catalogue.table(schema)
        rows = self._read_rows(table, keys)
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
        self._note(table, rows)
        self._ids.update((row[ROWID], row[KEY]) for row in rows)
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
            values.append(expiry_bound(schema, self.now_us))
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
        sql = f"rowid NOT IN (SELECT d.rowid FROM {table.name} d WHERE d.{column} < %s)"
        return sql, [expiry_bound(schema, self.now_us)]

    def keys_beside(
        self, key: bytes, low: bytes, high: bytes, count: int
    ) -> tuple[list[bytes], list[bytes]] | None:
        return None  # two statements; keys() is one

    def sizes(self) -> tuple[int, dict[str, int]]:
        """The bytes of all tables, and the number of documents by collection."""
        total, counts = 0, dict[str, int]()
        for table in self.catalogue.tables.values():
            sizes = " + ".join(f"pg_total_relation_size('{name}')" for name in table.names)
            row = self._one(f"SELECT {sizes}, (SELECT count(*) FROM {table.name})", [])
            assert row is not None
            total += row[0]
            counts[table.schema.name] = row[1]
        return total, counts

    # -- inside ------------------------------------------------------------------------------

    def _alike(self) -> "PostgresView":
        return copy(self)

    def _place(self, place: StoredVector) -> tuple[VectorTable, int]:
        return self.catalogue.split[place[:KEYSPACE_BYTES]].vector_table(place)

    def _read_vectors(self, table: VectorTable, rowids: list[int]) -> None:
        if len(self._vectors) >= _READ_MAX:
            self._vectors.clear()
        for rowid, sent in self._rows(table.read, [rowids]):
            self._vectors[table.name, rowid] = table.numbers(sent).tobytes()

    def _value(self, key: bytes, /) -> bytes | None:
        prefix = key[:KEYSPACE_BYTES]
        table = self.catalogue.tables.get(prefix)
        if table is None:
            return self._fact(key) if prefix == META else self._entry(prefix, key)
        row = self._read.pop(key, _UNREAD)
        if row is _UNREAD:
            row = self._stored(table, key)
        return None if row is None else table.value(row)

    def _stored(self, table: Table, key: bytes) -> tuple[Any, ...] | None:
        return self._one(table.point, [key[KEYSPACE_BYTES:]])

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
                row = self._one(f"SELECT count(*) FROM {table.name}", [])
                assert row is not None
                return CollectionCounters(row[0], self._next_rowid).pack()
        return None

    @property
    def _next_rowid(self) -> int:
        """No document that is there has it, or a larger one."""
        return self.lsn + 1

    def _documents(self, table: Table, low: bytes, high: bytes, reverse: bool) -> Iterator[Pair]:
        prefix = table.schema.prefix
        for rows in self._scanned(table, "key", low, high, reverse):
            self._saw(table, rows)
            for row in rows:
                yield prefix + row[KEY], table.value(row)

    def _entries(
        self, table: Table, column: str, low: bytes, high: bytes, reverse: bool
    ) -> Iterator[Pair]:
        prefix = low[:KEYSPACE_BYTES]
        for rows in self._scanned(table, column, low, high, reverse):
            self._note(table, rows)
            yield from [(prefix + row[PLACE], row[KEY]) for row in rows]

    def _scanned(
        self, table: Table, column: str, low: bytes, high: bytes, reverse: bool
    ) -> Iterator[Rows]:
        """The rows in a range of a column, in batches."""
        condition = self._condition(table, column)
        scan = partial(
            table.scan, column, reverse=reverse, narrows=condition is not None, locks=self.locks
        )
        return self._batches(scan, *_inside(low, high), condition, reverse)

    def _side_entries(
        self, table: Table, column: str, low: bytes, high: bytes, reverse: bool
    ) -> Iterator[Pair]:
        condition = self._condition(table, column)
        scan = partial(
            table.side_scan, reverse=reverse, narrows=condition is not None, locks=self.locks
        )
        for rows in self._batches(scan, low, high, condition, reverse):
            for row in rows:
                self._note(table, [row])  # one by one: a document may be in several
                yield row[PLACE], row[VALUE]

    def _batches(
        self,
        scan: Callable[..., str],
        start: bytes,
        end: bytes | None,
        condition: str | None,
        reverse: bool,
    ) -> Iterator[Rows]:
        """The rows of a statement over a range, each batch larger than the one before."""
        size = self._batch
        while True:
            sql = scan(has_high=end is not None, limit=size)
            rows = self._ordered(self._rows(sql, _bounds(start, end, condition)), reverse)
            yield rows
            if len(rows) < size:
                return
            if reverse:
                end = rows[-1][PLACE]
            else:
                start = rows[-1][PLACE] + b"\0"
            size = min(size * _WIDER, BATCH_MAX)

    def _read_rows(self, table: Table, keys: list[bytes]) -> Rows:
        """Reads the rows of documents that will be asked for, in one statement."""
        sql = table.points_locked if self.locks else table.points
        rows = self._rows(sql, [array_of(key[KEYSPACE_BYTES:] for key in keys)])
        self._note(table, rows)
        if not self.locks:
            for key in keys:
                self._read.setdefault(key, None)
        return rows

    def _note(self, table: Table, rows: Rows) -> None:
        """Keeps rows until their documents are asked for."""
        if len(self._read) + len(rows) > _READ_MAX:
            self._read.clear()
        prefix = table.schema.prefix
        self._read.update({prefix + row[KEY]: row for row in rows})
        self._saw(table, rows)

    def _saw(self, table: Table, rows: Rows) -> None:
        """Takes in that rows were read."""

    def _condition(self, table: Table, column: str) -> str | None:
        """What is asked of the documents in a range of a column."""
        return (
            None
            if self._narrowing is None
            else self._narrowing.behind(table.fields.get(column, ()))
        )

    def _rows(self, sql: str, values: list[Any]) -> Rows:
        return execute(self._connection, sql, values, binary=True).fetchall()

    def _ordered(self, rows: Rows, reverse: bool) -> Rows:
        """The rows of a scan in its order."""
        return rows

    def _one(self, sql: str, values: list[Any]) -> tuple[Any, ...] | None:
        rows = self._rows(sql, values)
        return rows[0] if rows else None


def _bounds(start: bytes, end: bytes | None, condition: str | None) -> list[Any]:
    bounds: list[Any] = [start] if end is None else [start, end]
    return bounds if condition is None else [*bounds, condition]


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
