"""The worker of `sync="interval"`.

Invariants:
- The first append that needs the worker starts it. It sleeps without a timeout while nothing is
  unsynced: an idle database wakes no thread.
- It syncs at most `interval_s` after the first append that armed it. Without a thread, arm() says
  so, and the commit waits for a sync of its own.
"""

import time
from collections.abc import Callable

from amberdb._errors import CommitUnknownError, ReplacedError
from amberdb._worker import FOREVER, Worker


class IntervalSync:
    """Calls `sync` within the interval after arm(). Its errors are ignored here: the log raises
    them to its callers."""

    def __init__(self, sync: Callable[[], None], interval_s: float) -> None:
        self.armed = False
        self._sync = sync
        self._interval_s = interval_s
        self._due_at = 0.0
        self._worker = Worker("amberdb-wal-interval", self._step)

    def arm(self) -> bool:
        """Requests a sync; False when there is no thread to make it. Called under the writer lock;
        callers test `armed` first."""
        self._due_at = time.monotonic() + self._interval_s
        self.armed = True
        if not self._worker.wake():
            self.armed = False
        return self.armed

    def close(self) -> None:
        """Ends the worker without a last sync: the log syncs when it closes."""
        self._worker.close()

    def _step(self) -> float:
        if not self.armed:
            return FOREVER
        left_s = self._due_at - time.monotonic()
        if left_s > 0:
            return left_s
        self.armed = False  # first: an append during the sync arms it again
        self._sync_quietly()
        return FOREVER

    def _sync_quietly(self) -> None:
        try:
            self._sync()
        except (CommitUnknownError, ReplacedError):
            pass  # the log raises for every waiter and append
