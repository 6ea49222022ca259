"""Transactions and snapshots of a database on a server.

    transaction   READ COMMITTED, or SERIALIZABLE; each document that it reads is locked until it
                  ends, and each id that has no document by its name
    snapshot      REPEATABLE READ on a connection of its own

Invariants:
- Two transactions that get() the same ids, whether there is a document or not, follow each other.
- Leaving the block without an exception commits everything; any exception, nothing.
"""

from types import TracebackType
from typing import Any, Final, final
from weakref import finalize

from psycopg import errors

from amberdb._errors import ClosedError, SnapshotExpiredError, TransactionError
from amberdb._types import NO_LSN, Isolation, Lsn, Sync
from amberdb.engine.database.transaction import (
    Snapshot,
    SnapshotCollection,
    Transaction,
    TransactionCollection,
    check_names,
)
from amberdb.engine.storage.held_view import HeldViews
from amberdb.engine.storage.view import View, schema_of
from amberdb.postgres.batch import PostgresBatch
from amberdb.postgres.connections import execute
from amberdb.postgres.errors import STALE
from amberdb.postgres.methods import PostgresReads
from amberdb.postgres.session import Sessions
from amberdb.postgres.table import lock_number
from amberdb.postgres.view import PostgresView

_LOCK: Final = "SELECT pg_advisory_xact_lock(number) FROM unnest(%s::bigint[]) number"


@final
class PostgresTransaction(Transaction):
    """A transaction on the server."""

    runs_alone = False

    def __init__(
        self,
        sessions: Sessions,
        sync: Sync | None,
        timeout_ms: int | None,
        isolation: Isolation | None,
    ) -> None:
        self._sessions = sessions
        self._sync = sync
        self._timeout_ms = timeout_ms
        self._isolation: Isolation | None = isolation
        self._batch: PostgresBatch | None = None
        self._locked: set[int] = set()
        """The numbers of the names that it holds."""
        self.lsn = NO_LSN
        self.embedders = sessions.embedders

    def __enter__(self) -> "PostgresTransaction":
        """Raises BusyError, TransactionError."""
        if self._batch is not None or self.lsn:
            raise TransactionError("a transaction is entered once: make another one")
        self._batch = self._sessions.begin(self._sync, self._timeout_ms, self._isolation)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        batch, self._batch = self.writer(), None
        if kind is None:
            self._sessions.commit(batch)
            self.lsn = Lsn(batch.lsn)
        else:
            self._sessions.roll_back(batch)

    def __repr__(self) -> str:
        state = (
            "open" if self._batch else f"committed at Lsn {self.lsn}" if self.lsn else "not open"
        )
        return f"<amberdb.PostgresTransaction {state}>"

    def __getitem__(self, name: str) -> TransactionCollection:
        """The collection inside the transaction. Raises CollectionMissingError."""
        schema_of(self.writer().view, name)
        return PostgresTransactionCollection(name, self)

    def lock(self, *names: str) -> None:
        """As Transaction.lock(): one statement, for the names that it does not hold yet."""
        batch = self.writer()
        check_names(names)
        of = f'"{self._sessions.catalogues.database}" '.encode()  # an id has no blank there
        numbers = {lock_number(of + name.encode("utf-8", "surrogatepass")) for name in names}
        if not numbers <= self._locked:
            try:
                execute(batch.connection, _LOCK, [sorted(numbers - self._locked)])
            except BaseException as error:
                batch.view.raise_typed(error)
                raise
            self._locked |= numbers

    def is_of(self, engine: Any) -> bool:
        """Whether it is an open transaction of this database."""
        return engine is self._sessions and self._batch is not None

    def writer(self) -> PostgresBatch:
        """The write batch. Raises ClosedError outside the `with` block."""
        if self._batch is None:
            raise ClosedError("the transaction is not open: use it inside its `with` block")
        return self._batch


@final
class PostgresTransactionCollection(PostgresReads, TransactionCollection):
    """A collection inside a transaction."""


@final
class _SnapshotView(PostgresView):
    """The view of a snapshot: a failure of one read ends its transaction."""

    __slots__ = ()

    def raise_typed(self, error: BaseException) -> None:
        if isinstance(error, (*STALE, errors.InFailedSqlTransaction)):
            raise SnapshotExpiredError(
                "a collection was declared anew or dropped since the snapshot was taken: take a "
                "new one"
            ) from None
        super().raise_typed(error)


@final
class PostgresSnapshot(Snapshot):
    """A view of all collections in one state of the server."""

    def __init__(
        self, sessions: Sessions, held_views: HeldViews, owner: object, max_age_ms: int
    ) -> None:
        taken: list[View] = []

        def take() -> View:
            taken.append(sessions.reading(_SnapshotView))
            return taken[0]

        def is_closed() -> None:
            ending.detach()

        self._held = held = held_views.hold(take, max_age_ms, owner, is_closed)
        ending = finalize(held, taken[0].close)  # of one that was dropped and not closed
        ending.atexit = False
        self.lsn = held.lsn

    def __getitem__(self, name: str) -> SnapshotCollection:
        """The collection in the snapshot's state. Raises CollectionMissingError,
        SnapshotExpiredError, ClosedError."""
        with self._held as view:
            schema_of(view, name)
        return PostgresSnapshotCollection(name, self)


@final
class PostgresSnapshotCollection(PostgresReads, SnapshotCollection):
    """A collection in a snapshot's state, read-only."""
