"""The readable protocol: what reads need of an open database, whichever process writes it.

The Committer is the readable of a database that this process writes, the Follower of one that
another process may be writing.

Invariants:
- A view is at one acknowledged Lsn, and no older than any view taken before it.
"""

from collections.abc import Iterator
from typing import Protocol

from amberdb._types import Lsn
from amberdb.engine.storage.view import State, View
from amberdb.wal import Record


class ReadableLog(Protocol):
    """The reading half of the log."""

    @property
    def durable_lsn(self) -> Lsn:
        """The Lsn of the last durable record."""
        ...

    @property
    def first_lsn(self) -> Lsn:
        """The Lsn of the oldest record that the log still has."""
        ...

    def read(self, after: Lsn, *, upto: Lsn | None = None) -> Iterator[Record]:
        """Records after `after`, up to the last durable one, or `upto`. Raises LogTruncatedError,
        CorruptionError."""
        ...

    def wait(self, lsn: int) -> None:
        """Returns when `lsn` is durable. Where another process syncs, returns at once."""
        ...

    def sync(self) -> None:
        """Makes every record durable. Where another process syncs, does nothing."""
        ...


class Owner(Protocol):
    """The handle that a long call belongs to."""

    @property
    def is_closed(self) -> bool: ...

    def check_open(self) -> None:
        """Raises ClosedError, ForkedError."""
        ...


class Readable(Protocol):
    """Views, the log and the newest Lsn of an open database."""

    @property
    def log(self) -> ReadableLog: ...

    @property
    def state(self) -> State:
        """The committed state: memtables, catalog, complete indexes."""
        ...

    @property
    def visible(self) -> int:
        """The Lsn up to which commits are acknowledged."""
        ...

    def view(self) -> View:
        """A view at the newest acknowledged Lsn."""
        ...

    def wait_for_commit(self, after: int, timeout_s: float | None, owner: Owner) -> bool:
        """Waits for a visible commit after `after`; False at the timeout, or when the owner of the
        call is closed."""
        ...
