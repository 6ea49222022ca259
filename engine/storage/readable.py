"""A readable: what reads need of an open database, whichever process writes it.

The Committer of this process is one, and the Follower of another process's database.

Invariants:
- A view is of one Lsn, acknowledged, and no older than any view that was taken before.
"""

from collections.abc import Iterator
from typing import Protocol

from amberdb._types import Lsn
from amberdb.engine.storage.view import State, View
from amberdb.wal import Record


class ReadableLog(Protocol):
    """The log's reading half."""

    @property
    def durable_lsn(self) -> Lsn: ...

    @property
    def first_lsn(self) -> Lsn: ...

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


class Readable(Protocol):
    @property
    def log(self) -> ReadableLog: ...

    @property
    def state(self) -> State: ...

    @property
    def visible(self) -> int:
        """The Lsn up to which commits are acknowledged."""
        ...

    def view(self) -> View:
        """Everything acknowledged, as of now."""
        ...

    def wait_for_commit(self, after: int, timeout_s: float | None) -> bool:
        """Blocks until something after `after` is visible; False when time ran out, or at close."""
        ...
