"""A worker: one background thread that starts on demand, sleeps until it is due, and is joined.

    worker = Worker("amberdb-expiry", step)     step() returns the seconds until it is due again
    worker.wake()                               something may be due now

Invariants:
- No thread runs before the first wake(), nor after step() has returned None: an idle database has
  no thread, or one that sleeps without a timeout.
- A wake() during a step is never lost: step() is called again after it.
- Where no thread can be had, wake() runs step() in the thread that calls it, and the next wake()
  tries to start one again. At most one thread runs step(); a wake() meanwhile is left to the next.
- step() never runs inside long_work(), nor where `is_outside` says no: it could wait for a lock
  that the calling thread holds. The next wake() runs it.
- After close() has returned, step() does not run, unless close() was called by the worker itself.
"""

import logging
import math
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias, final

from amberdb._call_lock import CallLock, Signal
from amberdb._errors import NoThreadWarning

logger = logging.getLogger("amberdb")

Step: TypeAlias = Callable[[], float | None]
"""Does the work that is due. Returns the seconds until more is due; FOREVER: only a wake() makes
it due; None: nothing is left, and the thread ends."""

FOREVER: Final = math.inf


class _Local(threading.local):
    depth = 0
    """How many blocks of long_work() this thread is in."""


_local = _Local()
_warned = False
"""A thread could not be started, and none was started since."""


@contextmanager
def long_work() -> Generator[None]:
    """Inside, wake() runs no step in this thread, which may hold a lock that the step takes."""
    _local.depth += 1
    try:
        yield
    finally:
        _local.depth -= 1


def started(thread: threading.Thread) -> bool:
    """Starts a thread. False, with a warning at the first time, when there is none to be had."""
    global _warned
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        if not _warned and "shutdown" not in str(error):  # the interpreter ends: nobody can help
            _warned = True
            _warn(thread.name, error)
        return False
    _warned = False
    return True


def in_parallel(calls: Sequence[Callable[[], object]], name: str) -> None:
    """Runs each call in a thread of its own, the last and those without a thread in this one.
    Returns when all have ended; raises the first of their errors."""
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads: list[threading.Thread] = []
    for call in calls[:-1]:
        thread = threading.Thread(target=run, args=(call,), name=name, daemon=True)
        if started(thread):
            threads.append(thread)
        else:
            run(call)
    run(calls[-1])
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


def _warn(name: str, error: Exception) -> None:
    text = (
        f"no thread could be started for {name} ({error}): its work is done by the calls that "
        "make it due, which take longer. Raise the limit of threads (ulimit -u, pids.max)"
    )
    logger.warning("%s", text)
    try:
        warnings.warn(text, NoThreadWarning, stacklevel=2)
    except NoThreadWarning:
        pass  # a filter makes it an error, and the call that it would fail has done its work


def always() -> bool:
    """The default of Worker's `is_outside`."""
    return True


@final
class Worker:
    """A background thread and its life cycle. `step` has to catch its own exceptions."""

    def __init__(self, name: str, step: Step, is_outside: Callable[[], bool] = always) -> None:
        """`is_outside` returns whether the calling thread may run a step."""
        self._name = name
        self._step = step
        self._is_outside = is_outside
        self._mutex = CallLock()
        self._changed = Signal()
        """Announced when the fields below change."""
        self._thread: threading.Thread | None = None
        """The thread that runs step(): the worker's own, or one that has called wake()."""
        self._is_own = False
        self._is_woken = False
        self.is_closing = False
        """close() was called: a long step should return."""

    def wake(self) -> bool:
        """Runs step() soon, in the worker's thread, or now, in this one, when there is none to be
        had. Returns whether the worker has a thread."""
        with self._mutex:
            if self.is_closing:
                return False
            self._is_woken = True
            if self._thread is not None and self._thread.is_alive():
                self._changed.announce()
                return self._is_own
            self._thread = thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._is_own = False
            try:
                self._is_own = started(thread)
            finally:
                if not self._is_own:
                    self._thread = None
            if self._is_own or _local.depth or not self._is_outside():
                return self._is_own
            self._thread = threading.current_thread()
        self._run_here()
        return False

    def is_current(self) -> bool:
        """Whether this thread is the one that runs step()."""
        return self._thread is threading.current_thread()

    def close(self, timeout_s: float | None = None) -> None:
        """Ends the thread, and waits up to `timeout_s` for a step that is running."""
        self.is_closing = True
        self._changed.announce()
        with self._mutex:  # not while wake() starts a thread
            thread, is_own = self._thread, self._is_own
        if thread is None or thread is threading.current_thread():
            return
        if not is_own:
            self._changed.wait_for(lambda: self._thread is not thread, timeout_s)
        elif thread.is_alive():
            thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._mutex:
                if self._thread is not threading.current_thread():
                    return
                if self.is_closing:
                    self._thread = None
                    return
                self._is_woken = False
            left_s = self._step()
            with self._mutex:
                if (left_s is None and not self._is_woken) or self.is_closing:
                    self._thread = None
                    return
            if left_s is not None and left_s > 0:
                limit_s = min(left_s, threading.TIMEOUT_MAX)
                self._changed.wait_for(self._is_due, None if left_s == FOREVER else limit_s)

    def _is_due(self) -> bool:
        return self._is_woken or self.is_closing

    def _run_here(self) -> None:
        """Runs the steps that are due now; what is due later is left to a later wake()."""
        left_s: float | None = 0.0
        try:
            while left_s is not None and left_s <= 0 and not self.is_closing:
                self._is_woken = False
                left_s = self._step()
        finally:
            self._thread = None
            self._changed.announce()
