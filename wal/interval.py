"""The thread of `sync="interval"`.

Invariants:
- The first append that needs the thread starts it. It sleeps without a timeout while nothing is
  unsynced: an idle database wakes no thread.
- It syncs at most `interval_s` after the first append that armed it.
"""

import threading
from collections.abc import Callable

from amberdb._errors import CommitUnknownError


class IntervalSync:
    """Calls `sync` within the interval after arm(). A CommitUnknownError is ignored here: the log
    raises it to its callers."""

    def __init__(self, sync: Callable[[], None], interval_s: float) -> None:
        self.armed = False
        self._sync = sync
        self._interval_s = interval_s
        self._wakeup = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def arm(self) -> None:
        """Requests a sync. Callers test `armed` first, which avoids the lock."""
        with self._wakeup:
            if self.armed or self._closing:
                return
            self.armed = True
            if self._thread is not None:
                self._wakeup.notify()
                return
            thread = threading.Thread(target=self._run, name="amberdb-wal-interval", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread can start at interpreter shutdown
                self.armed = False
            else:
                self._thread = thread
        if self._thread is None:
            self._sync_quietly()

    def close(self) -> None:
        """Ends the thread without a last sync: the log syncs when it closes."""
        with self._wakeup:
            self._closing = True
            self._wakeup.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._wakeup:
                while not (self.armed or self._closing):
                    self._wakeup.wait()
                if not self._closing:
                    self._wakeup.wait_for(lambda: self._closing, self._interval_s)
                if self._closing:
                    return
                self.armed = False  # first: an append during the sync arms it again
            self._sync_quietly()

    def _sync_quietly(self) -> None:
        try:
            self._sync()
        except CommitUnknownError:
            pass  # the log is poisoned and raises for every waiter and append
