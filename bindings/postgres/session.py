"""Transactions of one database on its server: how a call begins one, and ends it.

Invariants:
- Each has read the fence before anything else, so it goes by the catalog of its own state.
- A thread that has a transaction open begins no second one that writes: it would wait for itself.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, NamedTuple, final

import psycopg
from psycopg import errors

from amberdb._errors import TransactionError
from amberdb._types import Sync
from amberdb.engine.options import Options, check_sync
from amberdb.engine.schema.schema import Schema
from amberdb.engine.schema.split_document import no_vectors
from amberdb.engine.schema.vector_block import StoredVector, VectorsAt
from amberdb.engine.search.embedding import Embedders
from amberdb.postgres.batch import PostgresBatch, late_duplicate
from amberdb.postgres.catalogue import NOW_US, Began, Catalogue, Catalogues
from amberdb.postgres.connections import Connection, Connections
from amberdb.postgres.errors import STALE
from amberdb.postgres.locking_view import LockingView
from amberdb.postgres.table import HEAD, KEY, PLACE
from amberdb.postgres.view import PostgresView

_BEGIN_TO_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN_TO_WRITE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"


class Read(NamedTuple):
    """One document as it was read."""

    now_us: int
    value: bytes | None
    vectors_at: VectorsAt


@final
class Sessions:
    """The transactions of one database."""

    def __init__(
        self, where: str, connections: Connections, catalogues: Catalogues, options: Options
    ) -> None:
        self.where = where
        """The URL of the database, without secrets."""
        self.connections = connections
        self.catalogues = catalogues
        self.options = options
        self.embedders = Embedders()
        """Of the declarations of this process."""
        self._thread = threading.local()

    def reading(self) -> PostgresView:
        """A view of one state; close() ends its transaction."""
        connection, began, catalogue = self._begun(f"{_BEGIN_TO_READ}; {self.catalogues.state}")
        return PostgresView(self.connections, connection, catalogue, began)

    def read(self, schema: Schema, key: bytes) -> "Read | None":
        """A document's key read in one statement; None when the schema is not the newest."""
        known, database = self.catalogues.known, self.catalogues.database
        table = known.tables.get(schema.prefix)
        if table is None:
            return None
        vectors = list(table.vectors.items())
        head = ", ".join([HEAD, *[each.joined() for _, each in vectors]])
        statement = (
            f"SELECT {head}, f.version, {NOW_US} "
            f'FROM "{database}".fence f LEFT JOIN {table.name} d ON d.key = %s'
        )
        try:
            row = self.connections.read(statement, [key[len(schema.prefix) :]])
        except STALE:
            return None
        assert row is not None
        if row[-2] != known.version:
            return None
        now_us = self.catalogues.now_us(row[-1])
        if row[KEY] is None:
            return Read(now_us, None, no_vectors)
        columns = zip(vectors, row[PLACE:], strict=False)
        sent = {name: each.numbers(column) for (name, each), column in columns if column}
        names = list(schema.vectors)

        def vectors_at(place: StoredVector) -> bytes | None:
            found = sent.get(names[place.row[0]])
            return None if found is None else found.tobytes()

        return Read(now_us, table.value(row), vectors_at)

    def check_outside(self) -> None:
        """Raises TransactionError inside a transaction of this thread, which a second one would
        wait for."""
        if getattr(self._thread, "writes", False):
            raise TransactionError(
                "this thread has a transaction open: write through it, as tx[name].put(...), and "
                "declare collections before it"
            )

    def begin(self, sync: Sync | None, timeout_ms: int | None) -> PostgresBatch:
        """A batch of a transaction that writes. Raises BusyError, TransactionError."""
        if sync is not None:
            check_sync(sync)
        self.check_outside()
        wait_ms = self.options.busy_timeout_ms if timeout_ms is None else timeout_ms
        settings = f"SET LOCAL lock_timeout = {max(1, int(wait_ms))}"
        if (sync or self.options.sync) != "always":
            settings += "; SET LOCAL synchronous_commit = off"
        begin = f"{_BEGIN_TO_WRITE}; {settings}; {self.catalogues.shared}"
        connection, began, catalogue = self._begun(begin)
        self._thread.writes = True
        view = LockingView(self.connections, connection, catalogue, began)
        bytes_max = self.options.transaction_bytes_max
        return PostgresBatch(self.catalogues.database, connection, view, bytes_max)

    def commit(self, batch: PostgresBatch) -> None:
        """Ends the transaction of a batch. Raises DuplicateKeyError, ConflictError,
        CommitUnknownError; nothing is stored, but for the last."""
        connection, is_sent = batch.connection, False
        try:
            self.connections.check_sound(connection)
            batch.finish()
            is_sent = True
            connection.execute("COMMIT")
        except errors.UniqueViolation as error:
            self.connections.roll_back(connection)
            found = late_duplicate(connection, batch.tables, error)
            raise found or self.connections.reporter.typed(error) from None
        except psycopg.Error as error:
            raise self.connections.reporter.typed(error, committing=is_sent) from None
        finally:
            self._end(connection)

    def roll_back(self, batch: PostgresBatch) -> None:
        """Ends the transaction of a batch; nothing of it is stored."""
        self._end(batch.connection)

    @contextmanager
    def writing(self, sync: Sync | None) -> Generator[PostgresBatch]:
        """A batch for one block: committed at its end, or rolled back by an exception."""
        batch = self.begin(sync, None)
        try:
            yield batch
        except BaseException as error:
            self.roll_back(batch)
            self.connections.reporter.raise_typed(error)
            raise
        self.commit(batch)

    # -- inside ------------------------------------------------------------------------------

    def _begun(self, begin: str) -> tuple[Connection, Began, Catalogue]:
        connection, row = self.connections.begun(begin)
        try:
            version, server_us, lsn, marks = row
            began = Began(version, self.catalogues.now_us(server_us), lsn, marks)
            return connection, began, self.catalogues.at(connection, began.version)
        except BaseException as error:
            self.connections.give(connection)
            self.connections.reporter.raise_typed(error)
            raise

    def _end(self, connection: Connection) -> None:
        self._thread.writes = False
        self.connections.give(connection)
