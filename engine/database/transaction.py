"""Transactions and snapshots: several collections at one Lsn, written or read.

Invariants:
- An open transaction holds the writer lock: it is serializable, and reads its own writes.
- Leaving it without an exception commits everything in one record; any exception, nothing.
- A snapshot sees one Lsn, and never waits for a writer nor makes one wait. It has an age limit,
  since LMDB cannot reuse pages that it may still read.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Generic, TypeVar, final

from amberdb._errors import ClosedError, SnapshotExpiredError, TransactionError
from amberdb._types import NO_LSN, Lsn, Sync
from amberdb.engine.commit.committer import Committer
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.database.collection import ReadableCollection, WritableCollection
from amberdb.engine.options import check_sync
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.readable import Readable
from amberdb.engine.storage.view import View, schema_of

_T = TypeVar("_T")


@final
class Transaction:
    """Made by db.transaction(); use it with `with`, in one thread."""

    def __init__(self, committer: Committer, sync: Sync | None, timeout_ms: int | None) -> None:
        if sync is not None:
            check_sync(sync)
        self._committer = committer
        self.searchers = committer.searchers
        self.embedders = committer.embedders
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
        return _Kept(writer.view, writer.view)

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
        return _Kept(writer, writer.view)


@final
class Snapshot:
    """One Lsn, many reads; made by db.snapshot(). Threads may share it."""

    def __init__(
        self, source: Readable, max_age_ms: int, left: Callable[["Snapshot"], None]
    ) -> None:
        self._view = source.view()
        self.searchers = source.searchers
        self._left = left
        self._max_age_ms = max_age_ms
        self._began = time.monotonic()
        self._mutex = threading.RLock()
        self._failure: type[ClosedError] | type[SnapshotExpiredError] | None = None
        self.lsn: Lsn = Lsn(self._view.lsn)

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, name: str) -> "SnapshotCollection":
        """Raises CollectionMissingError when it did not exist at this Lsn."""
        with self.reading() as view:
            schema_of(view, name)
        return SnapshotCollection(name, self)

    def collection(self, name: str) -> "SnapshotCollection":
        """The same as at[name]."""
        return self[name]

    @property
    def age_ms(self) -> float:
        """Since it was taken."""
        return (time.monotonic() - self._began) * 1000

    @property
    def left_s(self) -> float:
        """Until its age limit."""
        return self._max_age_ms / 1000 - (time.monotonic() - self._began)

    def close(self) -> None:
        """Lets LMDB reuse its pages; reading from it raises ClosedError."""
        self._end(ClosedError)

    def expire(self) -> None:
        """Closes it when it is older than its limit; reading raises SnapshotExpiredError."""
        if self.age_ms > self._max_age_ms:
            self._end(SnapshotExpiredError)

    def reading(self) -> "_SnapshotRead":
        """The engine's side of it: its view, for one call."""
        return _SnapshotRead(self)

    def acquire(self) -> View:
        """The engine's side of it: its view, until release()."""
        self.expire()
        self._mutex.acquire()
        if self._failure is not None:
            self._mutex.release()
            raise self._failure(
                f"the snapshot was open for more than {self._max_age_ms} ms: take a new one"
                if self._failure is SnapshotExpiredError
                else "the snapshot is closed: use it inside its `with` block"
            )
        return self._view

    def release(self, error: BaseException | None = None) -> None:
        """Ends what acquire() began. Raises the typed form of what LMDB raised."""
        self._mutex.release()
        if error is not None:
            self._view.raise_typed(error)

    def _end(self, failure: type[ClosedError] | type[SnapshotExpiredError]) -> None:
        with self._mutex:  # not while another thread reads
            if self._failure is not None:
                return
            self._failure = failure
            self._view.close()
        self._left(self)


class _SnapshotRead:
    __slots__ = ("_snapshot",)

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __enter__(self) -> View:
        return self._snapshot.acquire()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._snapshot.release(error)


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


class _Kept(Generic[_T]):
    """What outlives the call that uses it."""

    __slots__ = ("_thing", "_view")

    def __init__(self, thing: _T, view: View) -> None:
        self._thing = thing
        self._view = view

    def __enter__(self) -> _T:
        return self._thing

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._view.raise_typed(error)
