"""Changes of tables: the columns of indexes, and their entries for documents that are there.

Invariants:
- It writes in the transaction of a declaration, alone: an error leaves everything as it was.
- Keyspaces are not used twice, so an index that is declared again has another column.
"""

from collections.abc import Iterator
from typing import Any, Final, final

from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.codec import decode_document
from amberdb.engine.schema.document_format import StoredDocument, unpack
from amberdb.engine.schema.keyspace import end_of
from amberdb.engine.schema.schema import Prepared, Schema
from amberdb.postgres.batch import duplicate
from amberdb.postgres.connections import Connection, execute, execute_each
from amberdb.postgres.search.text_table import TextTable
from amberdb.postgres.statement.functions import write_created, write_dropped
from amberdb.postgres.table import HEAD, KEY, Row, Table, stored_value

_BATCH: Final = 1000


@final
class TablesWriter:
    """Takes what a declaration changes; a CatalogWriter."""

    def __init__(
        self, connection: Connection, database: str, catalog: Catalog, lsn: int, now_us: int
    ) -> None:
        self.catalog = catalog
        """Before the declaration."""
        self.lsn = lsn
        self.is_saved = False
        """Whether the catalog is written, so that COMMIT comes next."""
        self._connection = connection
        self._database = database
        self._now_us = now_us
        self._entries: dict[bytes, bytes | None] = {}

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

    def change(self, before: Schema | None, after: Schema) -> None:
        """Brings the tables of a collection from one definition to another. Raises
        DuplicateKeyError, InvalidDocumentError."""
        table = self.table(after)
        old: dict[bytes, str] = {}
        old_texts: dict[bytes, TextTable] = {}
        if before is None:
            for statement in table.created():
                self.execute(statement)
        else:
            old, old_texts = self.table(before).columns, self.table(before).texts
        self._change_texts(table, old_texts)
        for prefix, name in old.items():
            if prefix not in table.columns:
                self.execute(f"ALTER TABLE {table.name} DROP COLUMN {name}")
                for beside, column in ((table.entries, "entry"), (table.values, "value")):
                    self.execute(
                        f"DELETE FROM {beside} WHERE {column} >= %s AND {column} < %s",
                        [prefix, end_of(prefix)],
                    )
        new = [name for prefix, name in table.columns.items() if prefix not in old]
        for name in new:
            self.execute(f"ALTER TABLE {table.name} ADD COLUMN {name} bytea")
        if new:
            self._fill(table)
        for name in new:
            self.execute(f"CREATE INDEX ON {table.name} ({name})")
        if after.row_indexes:
            self.execute(table.rowids_indexed())
        self.execute(write_dropped(table))
        self.execute(write_created(self._database, table))

    def execute(self, statement: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        cursor = execute(self._connection, statement, values)
        return cursor.fetchall() if cursor.description else []

    # -- inside ------------------------------------------------------------------------------

    def _change_texts(self, table: Table, old: dict[bytes, TextTable]) -> None:
        for prefix, text in old.items():
            if prefix not in table.texts:
                self.execute(f"DROP TABLE {', '.join(text.names)}")
        new = [text for prefix, text in table.texts.items() if prefix not in old]
        for text in new:
            for statement in text.created():
                self.execute(statement)
        if new:
            for rows in self._stored_rows(table):
                for text in new:
                    texts = [text.row(row.rowid, row.document) for row in rows]
                    text.change(self._connection, (), filter(None, texts))
        for text in new:
            self.execute(text.indexed())

    def _fill(self, table: Table) -> None:
        """Makes all entries of all documents anew."""
        self.execute(f"DELETE FROM {table.entries}")
        self.execute(f"DELETE FROM {table.values}")
        for rows in self._stored_rows(table):
            execute_each(self._connection, table.update, [row.updated for row in rows])
            self._insert(
                f"INSERT INTO {table.entries} VALUES (%s, %s, %s)",
                [(entry, row.key, value) for row in rows for entry, value in row.entries],
            )
            self._insert(
                f"INSERT INTO {table.values} VALUES (%s, %s)",
                [(value, row.key) for row in rows for value in row.uniques],
            )
            self._insert(
                f'INSERT INTO "{self._database}".marks VALUES (%s) ON CONFLICT DO NOTHING',
                [(mark,) for mark in sorted({mark for row in rows for mark in row.marks})],
            )
        repeated = self.execute(
            f"SELECT value, array_agg(key ORDER BY key) FROM {table.values} GROUP BY value "
            "HAVING count(*) > 1 LIMIT 1"
        )
        for value, keys in repeated:
            raise duplicate(table, value, keys)

    def _insert(self, statement: str, values: list[tuple[Any, ...]]) -> None:
        if values:
            execute_each(self._connection, statement, values)

    def _stored_rows(self, table: Table) -> Iterator[list[Row]]:
        """All documents as they are to be stored, in batches."""
        prefix, last = table.schema.prefix, b""
        sql = f"SELECT {HEAD} FROM {table.name} d WHERE d.key > %s ORDER BY d.key LIMIT {_BATCH}"
        while True:
            found = self.execute(sql, [last])
            if not found:
                return
            last = found[-1][KEY]
            yield [
                self._row(table, each[KEY], unpack(prefix + each[KEY], stored_value(prefix, each)))
                for each in found
            ]

    def _row(self, table: Table, id_bytes: bytes, stored: StoredDocument) -> Row:
        document = decode_document(stored.body)
        new = Prepared(
            document["id"],
            id_bytes,
            table.schema.prefix + id_bytes,
            document,
            stored.body,
            stored.expires_us,
            fresh=False,
        )
        times = stored.created_us, stored.updated_us
        return table.row(new, stored.version, *times, stored.rowid, self._now_us)
