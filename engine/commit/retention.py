"""Log retention: the Lsn up to which the log may be recycled, and the holders that keep it.

Subscribers of the change feed and backup chains hold the log by name, as replication slots do in
PostgreSQL.

Invariants:
- A holder keeps every record after its Lsn until it moves or is released, while the log is not
  larger than its limit. Past the limit all holders are ignored, and their reads of the log raise
  LogTruncatedError.
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
        """Keeps the log after `lsn`, under a name; an existing holder of the name moves."""
        self._holders[name] = lsn

    def release(self, name: str) -> None:
        """Removes a holder, if it exists."""
        self._holders.pop(name, None)

    def recyclable(self, applied: Lsn) -> Lsn:
        """The Lsn up to which the log may be recycled when LMDB has the commits up to `applied`."""
        held = list(self._holders.values())
        if not held or self._log.bytes_used > self._held_bytes_max:
            return applied
        if failpoints.on:
            failpoints.reach("subscriber.log-kept")
        return min(applied, *held)
