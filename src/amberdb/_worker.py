"""A worker: one background thread that starts on demand, sleeps until it is due, and is joined.

    worker = Worker("amberdb-expiry", step)     step() returns the seconds until it is due again
    worker.wake()                               something may be due now

Invariants:
- No thread runs before the first wake(), nor after step() has returned None: an idle database has
  no thread, or one that sleeps without a timeout.
- A wake() during a step is never lost: step() is called again after it.
- After close() has returned, step() does not run, unless close() was called by the worker itself.
- While the interpreter ends no thread can start; wake() then returns False.
"""

import math
import threading
from collections.abc import Callable
from typing import Final, TypeAlias, final

Step: TypeAlias = Callable[[], float | None]
"""Does the work that is due. Returns the seconds until more is due; FOREVER: only a wake() makes
it due; None: nothing is left, and the thread ends."""

FOREVER: Final = math.inf


@final
class Worker:
    """A background thread and its life cycle. `step` has to catch its own exceptions."""

    def __init__(self, name: str, step: Step) -> None:
        self._name = name
        self._step = step
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_woken = False
        self.is_closing = False
        """close() was called: a long step should return."""

    def wake(self) -> bool:
        """Runs step() soon, in the thread. Returns whether there is a thread to do so."""
        with self._wake:
            if self.is_closing:
                return False
            self._is_woken = True
            if self._thread is not None:
                self._wake.notify()
                return True
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None
                return False
            return True

    def close(self, timeout_s: float | None = None) -> None:
        """Ends the thread, and waits up to `timeout_s` for a step that is running."""
        with self._wake:
            self.is_closing = True
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._wake:
                if self.is_closing:
                    self._thread = None
                    return
                self._is_woken = False
            left_s = self._step()
            with self._wake:
                if self._is_woken and not self.is_closing:
                    continue
                if left_s is None or self.is_closing:
                    self._thread = None
                    return
                if left_s > 0:
                    limit_s = min(left_s, threading.TIMEOUT_MAX)
                    self._wake.wait(None if left_s == FOREVER else limit_s)
