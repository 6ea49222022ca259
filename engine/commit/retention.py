"""Log retention: up to which Lsn the log may be recycled, and who holds it back.

Subscribers of the change feed and backup chains hold the log by name, like the replication slots of
other databases.

Invariants:
- A holder keeps every record after its Lsn, until it moves on or releases, as long as the log is
  within its limit; past the limit no holder counts, and each of them gets LogTruncatedError.
"""

from typing import final

from amberdb import _failpoints as failpoints
from amberdb._types import Lsn
from amberdb.wal import Log


@final
class LogRetention:
    """The holders of a log. Threads may share it."""

    def __init__(self, log: Log, held_bytes_max: int) -> None:
        self._log = log
        self._held_bytes_max = held_bytes_max
        self._holders: dict[str, Lsn] = {}

    def hold(self, name: str, lsn: Lsn) -> None:
        """Keeps the log after `lsn`; moves a holder that is there already."""
        self._holders[name] = lsn

    def release(self, name: str) -> None:
        self._holders.pop(name, None)

    def recyclable(self, applied: Lsn) -> Lsn:
        """The Lsn up to which the log may be recycled, once `applied` is in LMDB."""
        held = list(self._holders.values())
        if not held or self._log.bytes_used > self._held_bytes_max:
            return applied
        if failpoints.on:
            failpoints.reach("subscriber.log-kept")
        return min(applied, *held)
