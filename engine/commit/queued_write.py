"""One commit on its way, and the write of a thread that waits for the writer lock.

    Committer.write(work) -> lock free:  the thread calls work, and commits
                          -> lock taken: QueuedWrite, which the thread that has the lock executes

Invariants:
- A write is executed once. The thread that executes it for another one notes in the Commit of that
  one that it is in memory, before anything lets go of it: whoever is interrupted, the next one sees
  whether it is done.
- A write whose call has ended is not executed: its thread may have written something newer.
- Each write has the errors, the result and the durability class of its own call.
"""

from collections.abc import Callable, Collection
from typing import Any, TypeAlias, TypeVar, final

from amberdb._call_lock import Holder, Waiter
from amberdb._types import Lsn, Sync
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.schema.keyspace import Effects
from amberdb.engine.storage.view import State

_T = TypeVar("_T")


@final
class Commit:
    """A commit on its way from its batch to its acknowledgement."""

    __slots__ = (
        "effects",
        "is_applied",
        "lsn",
        "memtable_bytes",
        "payload",
        "required_lsn",
        "result",
        "row_keys",
        "state",
        "sync",
        "writer",
    )

    writer: WriteBatch
    effects: Effects
    payload: bytes
    row_keys: Collection[bytes]
    lsn: Lsn
    required_lsn: int
    """What must be durable before it is acknowledged."""
    state: State
    """After it."""
    memtable_bytes: int
    result: Any
    """What the write returns."""

    def __init__(self, sync: Sync) -> None:
        self.sync: Sync = sync
        self.is_applied = False
        """It is in the log and in memory: it must not be made again."""


Work: TypeAlias = Callable[[WriteBatch], _T]
"""Fills the batch of one write, and returns what the write returns. It may be called again when it
was interrupted, and by the thread that holds the writer lock in place of the one that waits."""


Read: TypeAlias = tuple[State, bytes | None, bytes | None]
"""(state, key, value): what a write has read of LMDB before it took the writer lock."""


@final
class QueuedWrite(Waiter):
    """A write whose thread waits for the writer lock."""

    __slots__ = ("commit", "error", "read", "work")

    def __init__(self, holder: Holder, work: Work[object], commit: Commit, read: Read) -> None:
        super().__init__(holder)
        self.work = work
        self.commit = commit
        self.read = read
        self.error: Exception | None = None
