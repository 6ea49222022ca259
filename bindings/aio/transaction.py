"""Transactions and snapshots for an event loop.

Invariants:
- Tasks take turns: one transaction at a time, in a thread that does nothing else.
- The commit or rollback at its end is never interrupted: a task that is cancelled meanwhile gets
  its CancelledError afterwards.
"""

from functools import partial
from types import TracebackType
from typing import final

import amberdb
from amberdb import ClosedError, Lsn
from amberdb.aio.collections import ReadableCollection, WritableCollection
from amberdb.aio.threads import Threads, Turn


@final
class Transaction:
    """From db.transaction(), for `async with`. Tasks may share it; their calls run one after
    another."""

    def __init__(self, threads: Threads, blocking: amberdb.Transaction, timeout_ms: int) -> None:
        self.threads = threads
        self.blocking = blocking
        """For a method of a memory system: `await memory.remember(..., tx=tx.blocking)`."""
        self._timeout_ms = timeout_ms
        self._turn: Turn | None = None

    @property
    def lsn(self) -> Lsn:
        """The Lsn of the commit, after it."""
        return self.blocking.lsn

    @property
    def runs_alone(self) -> bool:
        """As amberdb.Transaction.runs_alone."""
        return self.blocking.runs_alone

    async def __aenter__(self) -> "Transaction":
        """Raises BusyError, TransactionError."""
        turn = await self.threads.turn(self._timeout_ms)
        try:
            await self.threads.run("transaction", self.blocking.__enter__, undo=_rollback)
        except BaseException:
            turn.end()
            raise
        self._turn = turn
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._turn is None:
            raise ClosedError("the transaction is not open: use it with `async with`")
        leave = partial(self.blocking.__exit__, kind, error, trace)
        try:
            await self.threads.run("transaction", leave, must=True)
        finally:
            self._turn.end()
            self._turn = None

    async def lock(self, *names: str) -> None:
        """As amberdb.Transaction.lock()."""
        await self.threads.run("transaction", partial(self.blocking.lock, *names))

    def __getitem__(self, name: str) -> WritableCollection:
        """A collection inside the transaction. Its methods raise CollectionMissingError."""
        return WritableCollection(name, self.threads, lambda: self.blocking[name], "transaction")

    def collection(self, name: str) -> WritableCollection:
        """The same as tx[name]."""
        return self[name]


@final
class Snapshot:
    """Many reads at one Lsn: `async with db.snapshot() as at`. Tasks may share it."""

    def __init__(self, threads: Threads, blocking: amberdb.Snapshot) -> None:
        self.threads = threads
        self._blocking = blocking

    @property
    def lsn(self) -> Lsn:
        """The snapshot shows all commits up to this Lsn."""
        return self._blocking.lsn

    @property
    def age_ms(self) -> float:
        """Milliseconds since it was taken."""
        return self._blocking.age_ms

    @property
    def left_s(self) -> float:
        """Seconds until its age limit closes it."""
        return self._blocking.left_s

    def __getitem__(self, name: str) -> ReadableCollection:
        """A collection at this Lsn. Its methods raise CollectionMissingError when it did not
        exist."""
        return ReadableCollection(name, self.threads, lambda: self._blocking[name])

    def collection(self, name: str) -> ReadableCollection:
        """The same as at[name]."""
        return self[name]

    async def close(self) -> None:
        """Releases its pages to LMDB; later reads from it raise ClosedError."""
        if not self.threads.is_closed:
            await self.threads.run("read", self._blocking.close, must=True)


def _rollback(transaction: amberdb.Transaction) -> None:
    """Ends a transaction whose task was cancelled before it could use it."""
    transaction.__exit__(ClosedError, ClosedError("its task was cancelled"), None)
