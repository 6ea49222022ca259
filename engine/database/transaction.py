"""Transactions and snapshots: several collections at one Lsn, written or read.

Invariants:
- An open transaction holds the writer lock: it is serializable, and reads its own writes.
- Leaving it without an exception commits everything in one record; any exception, nothing.
- A snapshot sees one Lsn, and never waits for a writer nor makes one wait. It has an age limit,
  since LMDB cannot reuse pages that it may still read.
"""

import threading
import weakref
from collections.abc import Iterable
from contextlib import AbstractContextManager
from opcode import opmap
from types import FrameType, TracebackType
from typing import ClassVar, Generic, TypeVar, final

from amberdb._call_lock import current_frame, has_ended
from amberdb._errors import ClosedError, TransactionError
from amberdb._public import public
from amberdb._types import NO_LSN, Lsn, Sync
from amberdb.engine.commit.queued_write import Work
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.database.engine import Engine
from amberdb.engine.database.handle import Handle
from amberdb.engine.database.readable_collection import ReadableCollection
from amberdb.engine.database.writable_collection import WritableCollection
from amberdb.engine.options import check_sync
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.embedding import Embedders
from amberdb.engine.search.searcher import SearcherSource
from amberdb.engine.search.searchers import SnapshotSearchers
from amberdb.engine.storage.held_view import HeldView
from amberdb.engine.storage.view import View, schema_of

_T = TypeVar("_T")
_BEFORE_WITH = opmap.get("BEFORE_WITH")
"""The instruction that calls `__enter__`; Python 3.14 has another one."""


@public
class Transaction:
    """A transaction, returned by db.transaction(). Use it with `with`, in one thread, once."""

    runs_alone: ClassVar[bool] = True
    """Whether transactions follow each other, as they do in a directory."""

    def __init__(
        self, handle: Handle, engine: Engine, sync: Sync | None, timeout_ms: int | None
    ) -> None:
        if sync is not None:
            check_sync(sync)
        self._handle = handle
        self._committer = engine.committer
        self.searchers = engine.searchers
        self.embedders = engine.embedders
        self._sync: Sync | None = sync
        self._timeout_ms = timeout_ms
        self._writer: WriteBatch | None = None
        self.lsn: Lsn = NO_LSN
        """The Lsn of the commit, after the block; NO_LSN before."""

    def __enter__(self) -> "Transaction":
        """Raises BusyError, TransactionError."""
        if self._writer is not None or self.lsn:
            raise TransactionError("a transaction is entered once: make another one")
        if self._handle.is_closed:
            self._handle.check_open()
        writer = None
        try:
            writer = self._committer.begin(current_frame(), self._timeout_ms)
            self._committer.keep(writer, _Block(self, current_frame(1)))
            self._writer = writer
            self._handle.has_transaction = True
            return self
        except BaseException:
            if writer is not None:  # an interruption, and the block is not entered
                self._writer = None
                self._committer.rollback(writer, None)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        writer, self._writer = self.writer(), None
        try:
            if kind is None:
                self.lsn = self._committer.commit(writer, self._sync)
            else:
                self._committer.rollback(writer, error)
        finally:
            self._handle.has_transaction = False

    def __repr__(self) -> str:
        state = (
            "open" if self._writer else f"committed at Lsn {self.lsn}" if self.lsn else "not open"
        )
        return f"<amberdb.Transaction {state}>"

    def __getitem__(self, name: str) -> "TransactionCollection":
        """The collection inside the transaction: tx["event"]. Raises CollectionMissingError."""
        schema_of(self.writer().view, name)
        return TransactionCollection(name, self)

    def collection(self, name: str) -> "TransactionCollection":
        """The same as tx[name]."""
        return self[name]

    def lock(self, *names: str) -> None:
        """Holds names, of whatever the program likes, until the transaction ends: another one that
        locks one of them waits.

            with db.transaction() as tx:
                tx.lock(f"user/{name}")
                if not tx["user"].find({"name": name}):
                    tx["user"].put({"name": name})

        A server needs it where a transaction looks for what another one may add: call it once, at
        the beginning, with all names; those of one call are taken in one order. In a directory
        transactions follow each other, and nothing is left to do. Raises ValueError for a name
        that is not a str, ClosedError, BusyError.
        """
        self.writer()
        check_names(names)

    def is_of(self, engine: Engine) -> bool:
        """Whether it commits to this engine."""
        return engine.committer is self._committer

    def writer(self) -> WriteBatch:
        """The write batch, for the collections of the transaction. Raises ClosedError outside the
        `with` block."""
        if self._writer is None:
            raise ClosedError("the transaction is not open: use it inside its `with` block")
        return self._writer


def check_names(names: Iterable[object]) -> None:
    """Raises ValueError unless each is a name that lock() takes."""
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"lock({name!r}): give names, each a str")


class TransactionCollection(WritableCollection):
    """A collection inside a transaction: reads see its own writes and every earlier commit.

    `sync` of single calls is ignored: the transaction has one.
    """

    def __init__(self, name: str, transaction: Transaction) -> None:
        super().__init__(name)
        self._transaction = transaction

    def _reading(self) -> AbstractContextManager[View]:
        writer = self._transaction.writer()
        writer.save_counters()
        return _TypedErrors(writer.view, writer.view)

    def _searchers(self) -> SearcherSource:
        return self._transaction.searchers

    def _embedders(self) -> Embedders:
        return self._transaction.embedders

    def _schema(self) -> Schema:
        return schema_of(self._transaction.writer().view, self.name)

    def _write(self, work: Work[_T], sync: Sync | None, key: bytes | None) -> _T:
        with self._writing(sync) as writer:
            return work(writer)

    def _writing(self, sync: Sync | None) -> AbstractContextManager[WriteBatch]:
        writer = self._transaction.writer()
        return _TypedErrors(writer, writer.view)


@public
class Snapshot:
    """A view of all collections at one Lsn, returned by db.snapshot(). Threads may share it."""

    def __init__(self, handle: Handle, max_age_ms: int) -> None:
        engine = handle.engine
        self.searchers = searchers = SnapshotSearchers(engine.searchers)
        self._held = held = engine.held_views.hold(
            engine.readable.view, max_age_ms, handle, searchers.clear
        )
        self.lsn: Lsn = held.lsn

    def __enter__(self) -> "Snapshot":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " closed" if self._held.is_closed else ""
        return f"<amberdb.Snapshot at Lsn {self.lsn}, age {self.age_ms:.0f} ms{state}>"

    def __getitem__(self, name: str) -> "SnapshotCollection":
        """The collection at the snapshot's Lsn: at["event"]. Raises CollectionMissingError when it
        did not exist then, SnapshotExpiredError, ClosedError."""
        with self._held as view:
            schema_of(view, name)
        return SnapshotCollection(name, self)

    def collection(self, name: str) -> "SnapshotCollection":
        """The same as at[name]."""
        return self[name]

    @property
    def age_ms(self) -> float:
        """Milliseconds since the snapshot was taken."""
        return self._held.age_ms

    @property
    def left_s(self) -> float:
        """Seconds until the age limit."""
        return self._held.left_s

    def close(self) -> None:
        """Ends the snapshot, so that LMDB can reuse its pages; reads raise ClosedError."""
        self._held.close()

    def reading(self) -> HeldView:
        """The held view, for the collections of the snapshot."""
        return self._held


class SnapshotCollection(ReadableCollection):
    """A collection at a snapshot's Lsn, read-only."""

    def __init__(self, name: str, snapshot: Snapshot) -> None:
        super().__init__(name)
        self._snapshot = snapshot

    def _reading(self) -> AbstractContextManager[View]:
        return self._snapshot.reading()

    def _searchers(self) -> SearcherSource:
        return self._snapshot.searchers


@final
class _Block:
    """The holder of the writer lock for the `with` block of a transaction.

    The block has ended when its transaction is garbage or its thread is gone, and when the function
    that has the `with` statement has ended: then an interruption kept `__exit__` from running. A
    generator may be suspended, and a call of `__enter__` that is not the statement's own may be in
    a function that ends before the block: of these the function says nothing.
    """

    def __init__(self, transaction: Transaction, frame: FrameType) -> None:
        self._transaction = weakref.ref(transaction)
        self._thread = threading.current_thread()
        code = frame.f_code
        is_statement = code.co_code[frame.f_lasti] == _BEFORE_WITH
        self._frame = frame if is_statement else None

    def has_ended(self) -> bool:
        if self._transaction() is None or not self._thread.is_alive():
            return True
        return self._frame is not None and has_ended(self._frame)


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
