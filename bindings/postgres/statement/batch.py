"""The write batch of a call that writes one document, in one statement.

    put(), insert()    one round trip
    update()           two: the document is read, and written if it has that version still

Invariants:
- What an update means is decided by the WriteBatch of the engine; here its outcome is kept.
- What needs more than the row of one document raises NotAtOnce, before anything is written.
"""

from typing import Any, final

from amberdb._types import Document
from amberdb.engine.commit.write_batch import OnConflict, WriteBatch
from amberdb.engine.schema.document_format import NEVER, StoredDocument
from amberdb.engine.schema.schema import Prepared, Schema
from amberdb.postgres.batch import ROW_BYTES
from amberdb.postgres.statement.functions import INSERT, REPLACE
from amberdb.postgres.statement.view import NotAtOnce, StatementView
from amberdb.postgres.table import Table, name_lock


@final
class StatementBatch(WriteBatch):
    """Collects what one call writes."""

    __slots__ = ("_arguments", "_bytes_max", "_reads", "_table")

    def __init__(self, view: StatementView, bytes_max: int) -> None:
        # Not that of WriteBatch: there is one effect.
        self.view = self._reads = view
        self.catalog = None
        self._bytes_max = bytes_max
        self.next_expiry_us = NEVER
        self._table: Table | None = None
        self._arguments: list[Any] = []

    @property
    def now_us(self) -> int:  # type: ignore[override]
        return self._reads.now_us

    @property
    def lsn(self) -> int:  # type: ignore[override]
        return self._reads.lsn

    def put(self, schema: Schema, new: Prepared, *, on_conflict: OnConflict = "replace") -> None:
        version = REPLACE if on_conflict == "replace" else INSERT
        self._write(schema, new, None, version)

    def delete(self, schema: Schema, id: str) -> bool:
        raise NotAtOnce

    def change(self, now_us: int | None) -> tuple[Table, list[Any]]:
        """The table, and the arguments of its function behind the settings."""
        if self._table is None:
            raise NotAtOnce
        version = self._reads.catalogue.version
        return self._table, [version, now_us, *self._arguments]

    # -- inside ------------------------------------------------------------------------------

    def _replace(
        self,
        schema: Schema,
        new: Prepared,
        old: StoredDocument,
        before: Document,
        updated_us: int | None = None,
    ) -> None:
        self._write(schema, new, self.lsn, old.version)

    def _remove(self, schema: Schema, key: bytes, old: StoredDocument) -> None:
        raise NotAtOnce

    def _write(self, schema: Schema, new: Prepared, lsn: int | None, version: int | None) -> None:
        table = self._reads.catalogue.table(schema)
        if not table.is_single or len(new.body) + ROW_BYTES > self._bytes_max:
            raise NotAtOnce
        row = table.single(new, self._reads.marks)
        if row is None:
            raise NotAtOnce
        lock = None if new.fresh else name_lock(table, new.key)
        self._table = table
        self.next_expiry_us = new.expires_us
        self._arguments = [lsn, lock, version, *row]
