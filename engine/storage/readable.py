"""What reads need of an open database: the Committer of this process, or the Follower of another's.

Invariants:
- A view is of one Lsn, acknowledged, and no older than the newest view that was taken before.
"""

from collections.abc import Iterator
from typing import Protocol

from amberdb._types import Lsn
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage.view import State, View
from amberdb.wal import Record


class ReadableLog(Protocol):
    """The log's reading half."""

    @property
    def durable_lsn(self) -> Lsn: ...

    @property
    def first_lsn(self) -> Lsn: ...

    def read(self, after: Lsn, *, upto: Lsn | None = None) -> Iterator[Record]:
        """Up to the last durable one, or `upto`. Raises LogTruncatedError, CorruptionError."""
        ...

    def wait(self, lsn: int) -> None:
        """Until it is durable, where this process can see to that."""
        ...

    def sync(self) -> None: ...


class Readable(Protocol):
    @property
    def log(self) -> ReadableLog: ...

    @property
    def searchers(self) -> Searchers: ...

    @property
    def state(self) -> State: ...

    @property
    def visible(self) -> int: ...

    def view(self) -> View:
        """Everything acknowledged, as of now."""
        ...

    def wait_for_commit(self, after: int, timeout_s: float | None) -> bool:
        """Until there is something behind `after`; False when time ran out, or at close."""
        ...
