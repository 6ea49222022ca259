"""Transactions of one database on its server: how a call begins one, and ends it.

Invariants:
- Each has read the fence before anything else, so it goes by the catalog of its own state. A
  statement that is a transaction of its own brings the fence along, and is nothing when that is not
  the one its maker knows.
- A thread that has a transaction open begins no second one that writes: it would wait for itself.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, TypeVar, final

import psycopg
from psycopg import errors

from amberdb._attempts import Overtaken
from amberdb._errors import AmberError, TransactionError
from amberdb._types import Isolation, Sync
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.options import Options, check_sync
from amberdb.engine.search.embedding import Embedders
from amberdb.postgres.batch import PostgresBatch, late_duplicate
from amberdb.postgres.catalogue import Began, Catalogues, Known
from amberdb.postgres.connections import Connection, Connections
from amberdb.postgres.locking_view import LockingView
from amberdb.postgres.statement.batch import StatementBatch
from amberdb.postgres.statement.view import NotAtOnce, StatementView
from amberdb.postgres.view import PostgresView

_BEGIN_TO_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_BEGIN_SERIALIZABLE: Final = "BEGIN ISOLATION LEVEL SERIALIZABLE"
_BEGIN_TO_WRITE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
_T = TypeVar("_T")


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
        self.on_commit: Callable[[int], None] = _nothing
        """Called with the time when the first document of a commit expires."""
        self._thread = threading.local()

    def reading(self, kind: type[PostgresView] = PostgresView) -> PostgresView:
        """A view of one state; close() ends its transaction."""
        begin = f"{_BEGIN_TO_READ}; {self.catalogues.state}"
        connection, known, began = self._begun(begin)
        return kind(self.connections, connection, known, began)

    def at_once(self, *, takes_lsn: bool = False) -> StatementView:
        """A view for one statement; with `takes_lsn` its Lsn is a new one."""
        return StatementView(self.connections, self.catalogues, takes_lsn=takes_lsn)

    def write_at_once(self, work: Callable[[WriteBatch], _T], sync: Sync | None) -> _T:
        """Does what writes one document, in one statement. Raises NotAtOnce when it has to be done
        in a transaction, and what that raises; then nothing is stored."""
        if sync is not None:
            check_sync(sync)
        self.check_outside()
        view = self.at_once(takes_lsn=True)
        if view.catalogue.outbox is not None:
            raise NotAtOnce  # the change feed has it in the same commit
        batch = StatementBatch(view, self.options.transaction_bytes_max)
        try:
            answer = work(batch)
        except AmberError:
            if view.has_read:
                raise
            raise NotAtOnce from None
        clock = self.catalogues.clock_us
        settings = [str(self.options.busy_timeout_ms), self._is_durable(sync)]
        table, values = batch.change(None if clock is None else clock())
        definition = table.schema.definition
        if self.catalogues.declared.get(definition.number, definition.version) < definition.version:
            raise NotAtOnce  # which is an error there
        try:
            ((lsn,),) = self.connections.written(table.write, [*settings, *values])
        except Overtaken:
            lsn = 0
        if not lsn:
            raise NotAtOnce
        self.on_commit(batch.next_expiry_us)
        return answer

    def is_outside(self) -> bool:
        """Whether this thread has no transaction open."""
        return not getattr(self._thread, "writes", False)

    def check_outside(self) -> None:
        """Raises TransactionError inside a transaction of this thread, which a second one would
        wait for."""
        if not self.is_outside():
            raise TransactionError(
                "this thread is inside its own open transaction: write through it, as "
                "tx[name].put(...), and declare collections before it"
            )

    def begin(
        self, sync: Sync | None, timeout_ms: int | None, isolation: Isolation | None = None
    ) -> PostgresBatch:
        """A batch of a transaction that writes. Raises BusyError, TransactionError."""
        if sync is not None:
            check_sync(sync)
        self.check_outside()
        wait_ms = self.options.busy_timeout_ms if timeout_ms is None else timeout_ms
        shared = self.catalogues.shared(max(1, int(wait_ms)), is_durable=self._is_durable(sync))
        begin = f"{_BEGIN_TO_WRITE}; {shared}"
        if isolation is not None:
            wait = f"SET LOCAL lock_timeout = {max(1, int(wait_ms))}"
            begin = f"{_BEGIN_SERIALIZABLE}; {wait}; {self.catalogues.before_snapshot}; {shared}"
        connection, known, began = self._begun(begin)
        self._thread.writes = True
        view = LockingView(self.connections, connection, known, began, self.catalogues)
        bytes_max = self.options.transaction_bytes_max
        return PostgresBatch(self.catalogues, connection, view, bytes_max)

    def commit(self, batch: PostgresBatch) -> None:
        """Ends the transaction of a batch. Raises DuplicateKeyError, ConflictError,
        CommitUnknownError; nothing is stored, but for the last."""
        connection, is_sent = batch.connection, False
        try:
            self.connections.check_sound(connection)
            batch.finish()
            is_sent = True
            connection.commit()  # without the cursor of execute()
        except errors.UniqueViolation as error:
            self.connections.roll_back(connection)
            found = late_duplicate(connection, batch.tables, error)
            raise found or self.connections.reporter.typed(error) from None
        except psycopg.Error as error:
            raise self.connections.reporter.typed(error, committing=is_sent) from None
        finally:
            self._end(connection)
        self.on_commit(batch.next_expiry_us)

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

    def _is_durable(self, sync: Sync | None) -> bool:
        return (sync or self.options.sync) == "always"

    def _begun(self, begin: str) -> tuple[Connection, Known, Began]:
        connection, row = self.connections.begun(begin)
        try:
            began = self.catalogues.began(row)
            return connection, self.catalogues.at(connection, began), began
        except BaseException as error:
            self.connections.give(connection)
            self.connections.reporter.raise_typed(error)
            raise

    def _end(self, connection: Connection) -> None:
        self._thread.writes = False
        self.connections.give(connection)


def _nothing(_: int) -> None: ...
