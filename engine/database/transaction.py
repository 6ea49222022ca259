"""Transactions and snapshots: several collections at one Lsn, written or read.

Invariants:
- An open transaction holds the writer lock: it is serializable, and reads its own writes.
- Leaving it without an exception commits everything in one record; any exception, nothing.
- A snapshot sees one Lsn, and never waits for a writer nor makes one wait. It has an age limit,
  since LMDB cannot reuse pages that it may still read.
"""

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Generic, TypeVar, final

from amberdb._errors import ClosedError, TransactionError
from amberdb._types import NO_LSN, Lsn, Sync
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.database.collection import ReadableCollection, WritableCollection
from amberdb.engine.database.engine import Engine
from amberdb.engine.options import check_sync
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.held_view import HeldView
from amberdb.engine.storage.view import View, schema_of

_T = TypeVar("_T")


@final
class Transaction:
    """Made by db.transaction(); use it with `with`, in one thread."""

    def __init__(self, engine: Engine, sync: Sync | None, timeout_ms: int | None) -> None:
        if sync is not None:
            check_sync(sync)
        self._committer = engine.committer
        self.searchers = engine.searchers
        self.embedders = engine.embedders
        self._sync: Sync | None = sync
        self._timeout_ms = timeout_ms
        self._writer: WriteBatch | None = None
        self.lsn: Lsn = NO_LSN
        """After the commit: where it is in the log."""

    def __enter__(self) -> "Transaction":
        """Raises BusyError, TransactionError."""
        if self._writer is not None or self.lsn:
            raise TransactionError("a transaction is entered once: make another one")
        self._writer = self._committer.begin(self._timeout_ms)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        writer, self._writer = self.writer(), None
        if kind is None:
            self.lsn = self._committer.commit(writer, self._sync)
        else:
            self._committer.rollback(writer, error)

    def __getitem__(self, name: str) -> "TransactionCollection":
        """Raises CollectionMissingError."""
        schema_of(self.writer().view, name)
        return TransactionCollection(name, self)

    def collection(self, name: str) -> "TransactionCollection":
        """The same as tx[name]."""
        return self[name]

    def writer(self) -> WriteBatch:
        """The engine's side of it. Raises ClosedError outside `with`."""
        if self._writer is None:
            raise ClosedError("the transaction is not open: use it inside its `with` block")
        return self._writer


@final
class TransactionCollection(WritableCollection):
    """A collection inside a transaction: sees what the transaction wrote, and everything
    committed before it began. `sync` of single calls has no meaning here and is ignored."""

    def __init__(self, name: str, transaction: Transaction) -> None:
        super().__init__(name)
        self._transaction = transaction

    def _reading(self) -> AbstractContextManager[View]:
        writer = self._transaction.writer()
        writer.save_counters()
        return _TypedErrors(writer.view, writer.view)

    def _searchers(self) -> Searchers:
        return self._transaction.searchers

    def _embedders(self) -> Embedders:
        return self._transaction.embedders

    def _schema(self) -> Schema:
        return schema_of(self._transaction.writer().view, self.name)

    def _writing(
        self, sync: Sync | None, key: bytes | None = None
    ) -> AbstractContextManager[WriteBatch]:
        writer = self._transaction.writer()
        return _TypedErrors(writer, writer.view)


@final
class Snapshot:
    """One Lsn, many reads; made by db.snapshot(). Threads may share it."""

    def __init__(self, held: HeldView, searchers: Searchers) -> None:
        self._held = held
        self.searchers = searchers
        self.lsn: Lsn = held.lsn

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<amberdb.Snapshot at {self.lsn}>"

    def __getitem__(self, name: str) -> "SnapshotCollection":
        """Raises CollectionMissingError when it did not exist at this Lsn."""
        with self._held as view:
            schema_of(view, name)
        return SnapshotCollection(name, self)

    def collection(self, name: str) -> "SnapshotCollection":
        """The same as at[name]."""
        return self[name]

    @property
    def age_ms(self) -> float:
        """Since it was taken."""
        return self._held.age_ms

    @property
    def left_s(self) -> float:
        """Seconds until its age limit."""
        return self._held.left_s

    def close(self) -> None:
        """Lets LMDB reuse its pages; reading from it raises ClosedError."""
        self._held.close()

    def reading(self) -> HeldView:
        """For its collections: the view, for one call."""
        return self._held


@final
class SnapshotCollection(ReadableCollection):
    """A collection as of a snapshot's Lsn."""

    def __init__(self, name: str, snapshot: Snapshot) -> None:
        super().__init__(name)
        self._snapshot = snapshot

    def _reading(self) -> AbstractContextManager[View]:
        return self._snapshot.reading()

    def _searchers(self) -> Searchers:
        return self._snapshot.searchers


class _TypedErrors(Generic[_T]):
    """A context that outlives the call, and raises the typed form of LMDB's errors."""

    __slots__ = ("_thing", "_view")

    def __init__(self, thing: _T, view: View) -> None:
        self._thing = thing
        self._view = view

    def __enter__(self) -> _T:
        return self._thing

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._view.raise_typed(error)
