"""The view of a transaction that writes.

Invariants:
- A document that is read is locked as a row until the transaction ends, and an id without one by
  its name: so two transactions that look for it follow each other.
- It shows what its own transaction has written.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias, final

from amberdb.engine.schema.document_format import pack
from amberdb.engine.storage.source import Get
from amberdb.index.ordered.keys import KEYSPACE_BYTES
from amberdb.postgres.catalogue import Began, Catalogues, Known
from amberdb.postgres.connections import Connection, Connections, Rows
from amberdb.postgres.table import KEY, ROWID, SIDES, Row, Table, name_lock
from amberdb.postgres.view import PostgresView

Packable: TypeAlias = tuple[int, int, int, int, int, bytes]
"""The arguments of pack() behind the key."""


class StoredRow(NamedTuple):
    """What a document has beside its row."""

    rowid: int
    """Under which search indexes have it."""
    sides: int
    """The number of its rows in e<n>."""


@final
class LockingView(PostgresView):
    """A view over a transaction in READ COMMITTED."""

    __slots__ = ("_catalogues", "_is_marked", "_own", "_rowids", "absent", "stored")

    locks = True

    def __init__(
        self,
        connections: Connections,
        connection: Connection,
        known: Known,
        began: Began,
        catalogues: Catalogues,
    ) -> None:
        super().__init__(connections, connection, known, began)
        self._catalogues = catalogues
        self._is_marked = True
        """Whether the marks are those that there are."""
        self._rowids = [began.lsn]
        """Taken, and to be given, the smallest last."""
        self._own: dict[bytes, bytes | Packable | None] = {}
        """Documents as this transaction has locked or written them, by key. Nobody else changes
        them until it ends."""
        self.stored: dict[bytes, StoredRow] = {}
        """By key what is stored of each document, which is locked."""
        self.absent: set[bytes] = set()
        """Keys without a document, whose names are locked."""

    def write(self, key: bytes, value: Packable | None) -> None:
        """Takes in what the transaction writes."""
        self._own[key] = value

    def note_stored(self, rows: Mapping[bytes, Row | None]) -> None:
        """Takes in what was sent of documents."""
        for key, row in rows.items():
            self.stored.pop(key, None)
            if row is not None:
                self.stored[key] = StoredRow(row.rowid, len(row.entries))

    def reread(self) -> None:
        """Forgets what scans have read, before the next read."""
        self._read.clear()
        self._ids.clear()
        self._is_marked = False

    @property
    def marks(self) -> frozenset[bytes]:
        if not self._is_marked:
            marks = self._catalogues.load_marks(self._connection)
            self._known = self._known._replace(marks=marks)
            self._is_marked = True
        return self._known.marks

    @property
    def known_marks(self) -> frozenset[bytes]:
        """Marks that are there for certain."""
        return self._known.marks

    def assume_absent(self, keys: list[bytes]) -> None:
        """Takes keys without a document as free, without locking their names."""
        for key in keys:
            if key not in self.stored and key not in self._own:
                self._own[key] = None

    def expect_rowids(self, count: int) -> None:
        """Takes so many rowids at once, if it has fewer."""
        if count > len(self._rowids):
            sql = f"SELECT nextval('{self._sequence}') FROM generate_series(1, %s)"
            self._rowids = [row[0] for row in reversed(self._rows(sql, [count]))]

    def take_rowid(self) -> int:
        """The rowid of a document that is created; each is larger than those before."""
        if not self._rowids:
            self.expect_rowids(1)
        return self._rowids.pop()

    @property
    def _next_rowid(self) -> int:
        self._rowids.clear()  # those that it takes from now on are larger
        row = self._one(f"SELECT last_value FROM {self._sequence}", [])
        assert row is not None
        return int(row[0]) + 1

    @property
    def _sequence(self) -> str:
        return f'"{self.catalogue.database}".lsn'

    def getter_of(self, prefix: bytes) -> Get:
        return self.get

    def _value(self, key: bytes, /) -> bytes | None:
        if key in self._own:
            own = self._own[key]
            if isinstance(own, tuple):  # most of what is written is not read again
                own = self._own[key] = pack(key, *own)
            return own
        value = super()._value(key)
        if key[:KEYSPACE_BYTES] in self.catalogue.tables:
            self._own[key] = value
        return value

    def _stored(self, table: Table, key: bytes) -> tuple[Any, ...] | None:
        sql, values = table.point_locked, [key[KEYSPACE_BYTES:]]
        row = self._one(sql, values)
        if row is None and key not in self.absent:
            self._one("SELECT pg_advisory_xact_lock(%s)", [name_lock(table, key)])
            row = self._one(sql, values)
        if row is None:
            self.absent.add(key)
        else:
            self.stored[key] = StoredRow(row[ROWID], row[SIDES])
        return row

    def _saw(self, table: Table, rows: Rows) -> None:
        prefix = table.schema.prefix
        self.stored.update((prefix + row[KEY], StoredRow(row[ROWID], row[SIDES])) for row in rows)
