"""Changes of tables: the columns of indexes, and their entries for documents that are there.

Invariants:
- It writes in the transaction of a declaration, alone: an error leaves everything as it was.
- A migration keeps rowids, and makes all entries of search indexes anew, also those whose content
  stays as it was.
- Keyspaces are not used twice, so an index that is declared again has another column.
"""

from collections.abc import Iterator
from typing import Any, Final, final

from amberdb._errors import AmberError
from amberdb.engine.commit.change_feed import Op
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.document_format import StoredDocument, unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.migration import failed
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.vector_block import StoredVector, VectorsAt
from amberdb.postgres.batch import ROW_BYTES, duplicate, insert_beside, repeated
from amberdb.postgres.catalogue import Catalogue
from amberdb.postgres.connections import Connection, execute, execute_each
from amberdb.postgres.feed.outbox import FEED, Outbox, Written
from amberdb.postgres.search.vector_table import VectorTable, require_vectors
from amberdb.postgres.statement.functions import write_created, write_dropped
from amberdb.postgres.table import HEAD, KEY, ROWID, Row, SearchTable, Table

_BATCH: Final = 1000


@final
class TablesWriter:
    """Takes what a declaration changes; a CatalogWriter."""

    def __init__(self, connection: Connection, before: Catalogue, lsn: int, now_us: int) -> None:
        self.catalog = before.catalog
        """Before the declaration."""
        self.lsn = lsn
        self.is_saved = False
        """Whether the catalog is written, so that COMMIT comes next."""
        self._connection = connection
        self._database = before.database
        self._outbox = before.outbox
        self._now_us = now_us
        self._entries: dict[bytes, bytes | None] = {}
        self._migrating: Schema | None = None
        """The collection whose documents are upgraded."""

    def set(self, key: bytes, value: bytes | None) -> None:
        """Takes an entry of the catalog."""
        self._entries[key] = value

    def save(self, version: int) -> None:
        """Writes the entries of the catalog, and its version."""
        name = self._database
        for key, value in self._entries.items():
            self.execute(f'DELETE FROM "{name}".catalog WHERE key = %s', [key])
            if value is not None:
                self.execute(f'INSERT INTO "{name}".catalog VALUES (%s, %s)', [key, value])
        self.execute(f'UPDATE "{name}".fence SET version = %s', [version])
        self.is_saved = True

    def table(self, schema: Schema) -> Table:
        """The table of a collection."""
        return Table(self._database, schema)

    def is_empty(self, schema: Schema) -> bool:
        """Whether it has no document."""
        rows = self.execute(f"SELECT 1 FROM {self.table(schema).name} LIMIT 1")
        return not rows

    def change(self, before: Schema | None, after: Schema, migrating: Schema) -> None:
        """Brings the tables of a collection from one definition to another. `migrating`: the one
        with the steps that documents have to take. Raises DuplicateKeyError, InvalidDocumentError,
        MigrationError."""
        self._migrating = None if migrating.migration is None else migrating
        table = self.table(after)
        known = None if before is None else self.table(before)
        if known is None:
            for statement in table.created():
                self.execute(statement)
        else:
            self._drop_columns(known, table)
        old = {} if known is None else known.columns
        new = [name for prefix, name in table.columns.items() if prefix not in old]
        for name in new:
            self.execute(f"ALTER TABLE {table.name} ADD COLUMN {name} bytea")
        gained, lost = _missing(known, table), _missing(table, known)
        self._create(gained)
        if known is not None:
            moves = any(isinstance(index, VectorTable) for index in (*gained, *lost))
            self._fill(
                known, table, gained, rewrites=moves or bool(new) or self._migrating is not None
            )
        for index in lost:
            self.execute(f"DROP TABLE {', '.join(index.names)}")
        for index in gained:
            for statement in index.indexed():
                self.execute(statement)
        for name in new:
            self.execute(f"CREATE INDEX ON {table.name} ({name})")
        if after.row_indexes:
            self.execute(table.rowids_indexed())
        self.execute(write_dropped(table))
        self.execute(write_created(self._database, table))

    def tell_name(self, op: Op, name: str, new_name: str | None) -> None:
        """Lets readers of the change feed know of a name that was changed."""
        if self._outbox is not None:
            self._outbox.write_name(self._connection, self._now_us, op, name, new_name)

    def forget(self, schema: Schema) -> None:
        """Removes a collection's documents from the change feed."""
        if self._outbox is not None:
            self._outbox.forget(self._connection, schema)

    def start_feed(self) -> Catalog | None:
        """Makes the outbox; None when there is one."""
        if self._outbox is not None:
            return None
        for statement in Outbox(self._database).created():
            self.execute(statement)
        self.set(FEED, b"1")
        return self.catalog

    def stop_feed(self) -> Catalog | None:
        """Removes the outbox; None when there is none, or a subscriber."""
        outbox = self._outbox
        if outbox is None:
            return None
        self.execute(f"LOCK TABLE {outbox.subscribers}")  # nobody is made meanwhile
        if self.execute(f"SELECT 1 FROM {outbox.subscribers} LIMIT 1"):
            return None
        self.execute(outbox.dropped())
        self.set(FEED, None)
        return self.catalog

    def execute(self, statement: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        cursor = execute(self._connection, statement, values, binary=True)
        return cursor.fetchall() if cursor.description else []

    # -- inside ------------------------------------------------------------------------------

    def _drop_columns(self, known: Table, table: Table) -> None:
        """Drops the columns, entries and values of indexes that are not declared any more."""
        for prefix, name in known.columns.items():
            if prefix not in table.columns:
                self.execute(f"ALTER TABLE {table.name} DROP COLUMN {name}")
                for beside, column in ((table.entries, "entry"), (table.values, "value")):
                    self.execute(
                        f"DELETE FROM {beside} WHERE {column} >= %s AND {column} < %s",
                        [prefix, end_of(prefix)],
                    )
        if not known.columns.keys() <= table.columns.keys():
            self.execute(
                f"UPDATE {table.name} d SET sides = (SELECT count(*) FROM {table.entries} e "
                "WHERE e.key = d.key) WHERE d.sides > 0"
            )

    def _tell(self, outbox: Outbox, table: Table, rows: list[Row]) -> None:
        """Lets readers of the change feed know of documents that were upgraded."""
        written = {table.schema.prefix + row.key: Written.of(table, row.document) for row in rows}
        size_bytes = sum(ROW_BYTES + row.size_bytes for row in rows)
        outbox.write(self._connection, self._now_us, size_bytes, written, "delete")

    def _create(self, indexes: list[SearchTable]) -> None:
        """Creates the tables of search indexes."""
        if any(isinstance(index, VectorTable) for index in indexes):
            require_vectors(self._connection)
        for index in indexes:
            for statement in index.created():
                self.execute(statement)

    def _fill(
        self, known: Table, table: Table, gained: list[SearchTable], *, rewrites: bool
    ) -> None:
        """Fills the tables of search indexes that it gains. `rewrites`: makes all documents and
        entries anew."""
        if not gained and not rewrites:
            return
        if rewrites:
            self.execute(f"DELETE FROM {table.entries}")
            self.execute(f"DELETE FROM {table.values}")
        for rows in self._stored_rows(known, table):
            if rewrites:
                self._rewrite(table, rows)
            documents = [(row.rowid, row.document) for row in rows]
            for index in gained if self._migrating is None else table.searched:
                index.replace(self._connection, [rowid for rowid, _ in documents], ())
                index.replace(self._connection, (), documents)
            if self._migrating is not None and self._outbox is not None:
                self._tell(self._outbox, table, rows)
        found = repeated(self._connection, table)
        if found is not None:
            raise self._duplicate(table, *found)

    def _duplicate(self, table: Table, value: bytes, keys: list[bytes]) -> AmberError:
        error = duplicate(table, value, keys)
        if self._migrating is None:
            return error
        problem = f"returned a document that cannot be stored: {error}"
        version = table.schema.definition.version
        return failed(table.schema.name, keys[-1].decode(), version, problem)

    def _rewrite(self, table: Table, rows: list[Row]) -> None:
        execute_each(self._connection, table.update, [row.updated for row in rows])
        insert_beside(self._connection, self._database, table, rows, frozenset())

    def _stored_rows(self, known: Table, table: Table) -> Iterator[list[Row]]:
        """All documents as they are to be stored, in batches."""
        prefix, last = table.schema.prefix, b""
        sql = f"SELECT {HEAD} FROM {table.name} d WHERE d.key > %s ORDER BY d.key LIMIT {_BATCH}"
        while True:
            found = self.execute(sql, [last])
            if not found:
                return
            last = found[-1][KEY]
            rowids = [each[ROWID] for each in found]
            vectors_at = self._vectors_of(known, rowids)
            yield [
                self._row(known, table, unpack(prefix + each[KEY], known.value(each)), vectors_at)
                for each in found
            ]

    def _vectors_of(self, known: Table, rowids: list[int]) -> VectorsAt:
        """The vectors of stored documents."""
        names = list(known.schema.vectors)
        numbers = {
            name: {
                rowid: vectors.numbers(sent).tobytes()
                for rowid, sent in self.execute(vectors.read, [rowids])
            }
            for name, vectors in known.vectors.items()
        }

        def vectors_at(place: StoredVector) -> bytes | None:
            field, rowid = place.row
            return numbers[names[field]].get(rowid)

        return vectors_at

    def _row(
        self, known: Table, table: Table, stored: StoredDocument, vectors_at: VectorsAt
    ) -> Row:
        if self._migrating is not None:
            upgraded = self._migrating.upgraded(stored, vectors_at)
            times = stored.created_us, stored.updated_us
            return table.row(upgraded, self.lsn, *times, stored.rowid, self._now_us)
        document = known.schema.as_stored(stored, vectors_at)
        return table.rebuilt(stored, document, self._now_us)


def _missing(known: Table | None, table: Table | None) -> list[SearchTable]:
    """The search indexes that `table` has, and `known` does not."""
    names = set[str]() if known is None else set(known.names)
    indexes = [] if table is None else table.searched
    return [index for index in indexes if names.isdisjoint(index.names)]
