"""What the database does in each minute, counted where it happens and kept in STATUS.

Invariants:
- No thread wakes for it: the first commit of a later minute, or a checkpoint, stores what was
  counted. A database that is idle has no samples of that time. Since a checkpoint follows the last
  commit within `checkpoint_interval_ms`, so does the sample that others see of it.
- A commit compares two numbers; a sync and a checkpoint add theirs.
- A sync or a checkpoint counts for the minute of the last commit.
- A process that opens the database adds to the sample that the one before has left of this minute.
"""

from typing import final

from amberdb._call_lock import CallLock
from amberdb._types import lsn_number
from amberdb.engine.storage.status import MINUTE_US, Minute, MinuteRing, Sample
from amberdb.wal import Log


@final
class Minutes:
    """The samples of a database that this process writes. Threads may share it."""

    __slots__ = ("_current", "_data_bytes", "_first", "_lock", "_log", "_ring", "end_us")

    def __init__(self, ring: MinuteRing, log: Log, data_bytes: int, last_us: int) -> None:
        self._ring = ring
        self._log = log
        self._lock = CallLock()
        self._data_bytes = data_bytes
        self._begin(last_us)

    def _begin(self, time_us: int) -> None:
        minute = time_us // MINUTE_US
        self._current = self._ring.sample(minute) or Sample(minute)
        self._first = lsn_number(self._log.last_lsn) - self._current.commits
        self.end_us = (minute + 1) * MINUTE_US
        """The time from which on commits are of another minute."""

    def turn(self, time_us: int) -> None:
        """Stores the current minute, and begins the one of the next commit. The caller holds the
        writer lock."""
        with self._lock:
            self._store()
            self._begin(time_us)

    def synced(self, took_us: float) -> None:
        """Counts a sync of the log. Only the thread that leads calls it."""
        sample = self._current
        sample.syncs += 1
        sample.sync_us_total += took_us
        if took_us > sample.sync_us_max:
            sample.sync_us_max = took_us

    def checkpointed(self, took_ms: float, data_bytes: int) -> None:
        """Counts a checkpoint, and stores the current minute."""
        sample = self._current
        sample.checkpoints += 1
        sample.checkpoint_us_max = max(sample.checkpoint_us_max, took_ms * 1000)
        self._data_bytes = data_bytes
        with self._lock:
            self._store()

    def last_hour(self, now_us: int) -> tuple[Minute, ...]:
        """The samples of the last 60 minutes, the current one as it is now."""
        with self._lock:
            self._store()
        return self._ring.last_hour(now_us)

    def _store(self) -> None:
        sample = self._current
        sample.commits = lsn_number(self._log.last_lsn) - self._first
        sample.log_bytes = self._log.bytes_used
        sample.data_bytes = self._data_bytes
        self._ring.store(sample)
