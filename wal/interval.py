"""The thread behind `sync="interval"`.

Invariants:
- It is started by the first append that needs it, and sleeps without a timeout while nothing is
  unsynced: an idle database wakes no thread.
- It starts to sync at most `interval_s` after the first append that armed it.
"""

import threading
from collections.abc import Callable

from amberdb._errors import CommitUnknownError


class IntervalSync:
    """Calls `sync` some time after it was armed. Exceptions of `sync` are the log's to keep."""

    def __init__(self, sync: Callable[[], None], interval_s: float) -> None:
        self.armed = False
        self._sync = sync
        self._interval_s = interval_s
        self._wakeup = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def arm(self) -> None:
        """There are unsynced bytes. Callers test `armed` first: it spares them the lock."""
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
            except RuntimeError:  # no thread starts while the interpreter ends
                self.armed = False
            else:
                self._thread = thread
        if self._thread is None:
            self._sync_quietly()

    def close(self) -> None:
        """Ends the thread without a last sync: the log does its own."""
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
                self.armed = False  # first: what is appended during the sync arms it again
            self._sync_quietly()

    def _sync_quietly(self) -> None:
        try:
            self._sync()
        except CommitUnknownError:
            pass  # the log is poisoned and says so to everybody who waits or appends
