"""The write batch of a transaction on the server.

Invariants:
- What an operation means is decided by the WriteBatch of the engine; here its outcome is kept by
  document, and sent to the server before the next scan, and at the end.
- A document that is written is locked first, or its id is new. When another writer was faster
  with the id, that is an Overtaken, and nothing is overwritten.
- Values of Unique indexes are compared when the transaction ends; those of expired documents are
  free.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, TypeAlias, final

import psycopg
from psycopg import errors

from amberdb._errors import CollectionVersionError, DuplicateKeyError, TransactionTooLargeError
from amberdb._types import Document
from amberdb.engine.commit.change_feed import Op
from amberdb.engine.commit.write_batch import ReadDocument, WriteBatch
from amberdb.engine.schema.document_format import NEVER, StoredDocument
from amberdb.engine.schema.keyspace import Effects
from amberdb.engine.schema.schema import Prepared, Schema
from amberdb.index.ordered.keys import KEYSPACE_BYTES, encode_rowid, encode_rowid_desc
from amberdb.postgres.catalogue import Catalogues
from amberdb.postgres.connections import Connection, copy_each, execute, execute_each
from amberdb.postgres.feed.outbox import Written
from amberdb.postgres.locking_view import LockingView
from amberdb.postgres.table import COPIED, Row, Table

_DUPLICATE: Final = re.compile(r"\\x([0-9a-f]+)")
ROW_BYTES: Final = 100
"""What a document counts towards transaction_bytes_max besides its own bytes."""


_Rows: TypeAlias = dict[bytes, Row | None]
"""What becomes of documents of one collection, by key; None: it is deleted."""


@final
class PostgresBatch(WriteBatch):
    """Collects what one transaction writes."""

    __slots__ = (
        "_bytes_max",
        "_changes",
        "_database",
        "_declared",
        "_gone",
        "_left",
        "_locking",
        "_values",
        "_written",
        "connection",
    )

    def __init__(
        self, catalogues: Catalogues, connection: Connection, view: LockingView, bytes_max: int
    ) -> None:
        # Not that of WriteBatch: effects go to the server, and counters are its own.
        self.lsn = view.lsn
        self.now_us = view.now_us
        self.view = view
        self.catalog = None
        self.next_expiry_us = NEVER
        self._database = catalogues.database
        self._declared = catalogues.declared
        self.connection = connection
        self._locking = view
        self._bytes_max = self._left = bytes_max
        self._changes: dict[bytes, tuple[Table, Row | None]] = {}
        self._values: dict[bytes, Table] = {}
        """Of Unique indexes, that the transaction has stored."""
        self._written: dict[bytes, Written] = {}
        """By key, for the change feed."""
        self._gone: Op = "delete"

    @property
    def tables(self) -> Iterable[Table]:
        """Those of the catalog that the transaction goes by."""
        return self._locking.catalogue.tables.values()

    def table(self, schema: Schema) -> Table:
        """The table of a collection."""
        return self._locking.catalogue.table(schema)

    def expect(self, schema: Schema, new: Sequence[Prepared]) -> None:
        """Takes in that these documents will be put: they are read, and locked, at once."""
        keys = [each.key for each in new if not each.fresh]
        if keys:
            self._locking.prefetch(schema, keys)
            self._locking.assume_absent(keys)
        self._locking.expect_rowids(len(new))

    def remove(self, schema: Schema, found: Iterable[ReadDocument]) -> int:
        table = self.table(schema)
        keys = [key for key, _, _ in found]  # first: it is a scan, which may meet one again
        for key in keys:
            self._change(table, key, None)
            self._locking.write(key, None)
        return len(keys)

    def expired(self, table: Table, keys: list[bytes]) -> None:
        """Takes in which documents the transaction has removed, all of them expired."""
        self._gone = "expire"
        self._left -= ROW_BYTES * len(keys)
        self._written.update((table.schema.prefix + key, Written(table)) for key in keys)

    def set(self, key: bytes, value: bytes | None) -> None:
        raise AssertionError("the catalog is changed by declarations alone")

    def finish(self) -> Effects:
        """Sends what is left, and compares the values of Unique indexes. Raises
        DuplicateKeyError."""
        self.flush()
        by_table: dict[Table, list[bytes]] = {}
        for value, table in self._values.items():
            by_table.setdefault(table, []).append(value)
        for table, values in by_table.items():
            found = repeated(self.connection, table, values)
            if found is not None:
                raise duplicate(table, *found)
        outbox = self._locking.catalogue.outbox
        if outbox is not None and self._written:
            size_bytes = self._bytes_max - self._left
            outbox.write(self.connection, self.now_us, size_bytes, self._written, self._gone)
        return {}

    def save_counters(self) -> None:
        """Sends what is left, before a read."""
        try:
            changes = self.flush()
        except psycopg.Error as error:
            self._locking.raise_typed(error)
            raise
        for rows in changes.values():
            self._locking.note_stored(rows)
        self._locking.reread()

    def flush(self) -> dict[Table, _Rows]:
        """Sends what is left, and returns it."""
        changes, self._changes = self._changes, {}
        if self._locking.catalogue.outbox is not None:
            self._written.update((key, _written(*change)) for key, change in changes.items())
        by_table: dict[Table, _Rows] = {}
        for key, (table, row) in changes.items():
            by_table.setdefault(table, {})[key] = row
        for table, rows in by_table.items():
            self._send(table, rows)
        return by_table

    # -- inside ------------------------------------------------------------------------------

    def _insert(
        self, schema: Schema, new: Prepared, times_us: tuple[int, int] | None = None
    ) -> None:
        created_us, updated_us = times_us or (self.now_us, self.now_us)
        self._store(schema, new, created_us, updated_us, self._locking.take_rowid())

    def _replace(
        self,
        schema: Schema,
        new: Prepared,
        old: StoredDocument,
        before: Document,
        updated_us: int | None = None,
    ) -> None:
        updated_us = self.now_us if updated_us is None else updated_us
        is_other = schema.is_another_row(before, new.document)
        rowid = self._locking.take_rowid() if is_other else old.rowid
        self._store(schema, new, old.created_us, updated_us, rowid)

    def _remove(self, schema: Schema, key: bytes, old: StoredDocument) -> None:
        self._change(self.table(schema), key, None)
        self._locking.write(key, None)

    def _store(
        self, schema: Schema, new: Prepared, created_us: int, updated_us: int, rowid: int
    ) -> None:
        table = self.table(schema)
        self._check_version(schema)
        row = table.row(new, self.lsn, created_us, updated_us, rowid, self.now_us)
        self._change(table, new.key, row)
        if new.expires_us < self.next_expiry_us:
            self.next_expiry_us = new.expires_us
        written = self.lsn, created_us, updated_us, new.expires_us, rowid, new.body
        self._locking.write(new.key, written)

    def _check_version(self, schema: Schema) -> None:
        """Raises CollectionVersionError where this program makes documents of an older version."""
        declared, version = self._declared.get(schema.definition.number), schema.definition.version
        if declared is not None and declared < version:
            raise CollectionVersionError(
                f"collection {schema.name!r} is at version {version} by now, and this program "
                f"declared version {declared}: use the program that declared the newer one",
                collection=schema.name,
                version=version,
            )

    def _change(self, table: Table, key: bytes, row: Row | None) -> None:
        left = self._left - ROW_BYTES - (row.size_bytes if row else 0)
        if left < 0:
            raise TransactionTooLargeError(
                "the transaction is larger than transaction_bytes_max: split it, or raise the "
                "limit at connect"
            )
        self._left = left
        self._changes[key] = table, row

    def _send(self, table: Table, changes: _Rows) -> None:
        connection, stored = self.connection, self._locking.stored
        there = [key for key in changes if key in stored]
        rows = {key: row for key, row in changes.items() if row is not None}
        new = rows
        if there:
            self._clear(table, there, rows)
            gone = [key[KEYSPACE_BYTES:] for key in there if key not in rows]
            if gone:
                execute(connection, table.delete, [gone])
            old = [rows[key] for key in there if key in rows]
            if old:
                execute_each(connection, table.update, [row.updated for row in old])
            new = {key: row for key, row in rows.items() if key not in stored}
        if len(new) == 1:
            execute(connection, table.insert, next(iter(new.values())).inserted)
        elif new:
            types = [*COPIED, *["bytea"] * len(table.columns)]
            copy_each(connection, table.copy, types, (row.copied for row in new.values()))
        self._send_entries(table, rows)
        if table.searched:
            self._send_searched(table, changes)

    def _clear(self, table: Table, there: list[bytes], rows: dict[bytes, Row]) -> None:
        """Deletes what stored documents have beside their rows. Entries that they have again stay,
        under the new rowid where it is another: a find() of another transaction that waits for one
        that is deleted would not find the document after this commit."""
        stored = self._locking.stored
        beside = [key for key in there if stored[key].sides]
        moved = [
            (key, stored[key].rowid, rows[key].rowid)
            for key in beside
            if key in rows and rows[key].rowid != stored[key].rowid
        ]
        if moved:
            values = [
                [*map(encode_rowid, (old, new)), encode_rowid_desc(new), key[KEYSPACE_BYTES:]]
                for key, old, new in moved
            ]
            execute_each(self.connection, table.move_entries, values)
        if beside:
            kept = [entry for key in beside if key in rows for entry, _ in rows[key].entries]
            sql = f"DELETE FROM {table.entries} WHERE key = ANY(%s) AND entry <> ALL(%s)"
            keys = [key[KEYSPACE_BYTES:] for key in beside]
            execute(self.connection, sql, [keys, kept])
        if table.schema.unique_indexes:
            keys = [key[KEYSPACE_BYTES:] for key in there]
            execute(self.connection, f"DELETE FROM {table.values} WHERE key = ANY(%s)", [keys])

    def _send_entries(self, table: Table, rows: dict[bytes, Row]) -> None:
        beside = [row for row in rows.values() if row.marks or row.entries or row.uniques]
        values = [value for row in beside for value in row.uniques]
        if values:
            self._free_expired(table, values)
            self._values.update(dict.fromkeys(values, table))
        marks = self._locking.known_marks
        insert_beside(self.connection, self._database, table, beside, marks)

    def _send_searched(self, table: Table, changes: _Rows) -> None:
        """Changes the search indexes where a document has another rowid."""
        stored = self._locking.stored
        before = {key: stored[key].rowid for key in changes if key in stored}
        after = {key: row.rowid for key, row in changes.items() if row is not None}
        gone = [rowid for key, rowid in before.items() if after.get(key) != rowid]
        new = [row for key, row in changes.items() if row and before.get(key) != row.rowid]
        for index in table.searched:
            index.replace(self.connection, gone, [(row.rowid, row.document) for row in new])

    def _free_expired(self, table: Table, values: list[bytes]) -> None:
        if table.schema.expires_at is not None:
            execute(
                self.connection,
                f"DELETE FROM {table.values} u USING {table.name} d WHERE u.value = ANY(%s) "
                "AND d.key = u.key AND d.expires_us <= %s",
                [values, self.now_us],
            )


def _written(table: Table, row: Row | None) -> Written:
    return Written.of(table, None if row is None else row.document)


def insert_beside(
    connection: Connection,
    database: str,
    table: Table,
    rows: Collection[Row],
    known_marks: frozenset[bytes],
) -> None:
    """Stores what documents have beside their rows, and the marks that are not known."""
    if not rows:
        return
    marks = {mark for row in rows for mark in row.marks} - known_marks
    entries = [(entry, row.key, value) for row in rows for entry, value in row.entries]
    values = [(value, row.key) for row in rows for value in row.uniques]
    inserts: tuple[tuple[str, list[Any]], ...] = (
        (
            f'INSERT INTO "{database}".marks VALUES (%s) ON CONFLICT DO NOTHING',
            [(mark,) for mark in sorted(marks)],
        ),
        (
            f"INSERT INTO {table.entries} AS e VALUES (%s, %s, %s) ON CONFLICT (entry) DO UPDATE "
            "SET value = EXCLUDED.value WHERE e.value <> EXCLUDED.value",
            entries,
        ),
        (f"INSERT INTO {table.values} VALUES (%s, %s)", values),
    )
    for statement, each in inserts:
        if each:
            execute_each(connection, statement, each)


def repeated(
    connection: Connection, table: Table, values: list[bytes] | None = None
) -> tuple[bytes, list[bytes]] | None:
    """A value of a Unique index that several documents have, of these values or of all, and their
    keys."""
    among = "" if values is None else "WHERE value = ANY(%s) "
    sql = (
        f"SELECT value, array_agg(key ORDER BY key) FROM {table.values} {among}GROUP BY value "
        "HAVING count(*) > 1 LIMIT 1"
    )
    row = execute(connection, sql, None if values is None else [values]).fetchone()
    return None if row is None else (row[0], row[1])


def duplicate(table: Table, value: bytes, keys: list[bytes]) -> DuplicateKeyError:
    """The error for documents with one value of a Unique index."""
    index = next(i for i in table.schema.unique_indexes if value.startswith(i.prefix))
    ids = [key.decode() for key in keys]
    return DuplicateKeyError(
        f"collection {table.schema.name!r}: documents {' and '.join(map(repr, ids[:2]))} have the "
        f"same {', '.join(index.spec.fields)}, which {index.spec.name} keeps unique: change one of "
        "them",
        collection=table.schema.name,
        key=ids[-1],
        index=index.spec.name,
    )


def late_duplicate(
    connection: Connection, tables: Iterable[Table], error: errors.UniqueViolation
) -> DuplicateKeyError | None:
    """The error for a value that another writer has committed first, which the commit found."""
    found = _DUPLICATE.search(error.diag.message_detail or "")
    for table in tables:
        if found is not None and table.values.endswith(f".{error.diag.table_name}"):
            value = bytes.fromhex(found[1])
            sql = f"SELECT key FROM {table.values} WHERE value = %s"
            rows: list[tuple[Any, ...]] = execute(connection, sql, [value]).fetchall()
            return duplicate(table, value, [row[0] for row in rows] or [b"?"])
    return None
