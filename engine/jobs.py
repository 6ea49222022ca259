"""A queue of long jobs, run one after the other by a background thread. A database has two: one
for the graphs and cache files of vectors, one for maintenance.

Invariants:
- The thread starts with the first job and ends when the queue is empty: an idle database has none.
- At most one job runs at a time, so the memory and disk that one job needs is the peak.
- A job that fails is tried again after a pause, and delays no other.
- Where no thread can be had, want() runs the job in the thread that calls it.
- close() waits only until the running job has seen that it is to stop.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, TypeVar, final

from amberdb import _failpoints as failpoints
from amberdb._call_lock import CallLock, current_frame
from amberdb._worker import Worker, always, long_work
from amberdb.engine.failures import Failures

T = TypeVar("T")

Stop: TypeAlias = Callable[[], bool]
"""Returns whether the job is to stop."""
Job: TypeAlias = Callable[[Stop], None]


YIELD_S: Final = 5e-5
"""A sleep that hands the interpreter to a waiting thread, which would get it after 5 ms otherwise.
sleep(0) would take it back before that thread has woken up."""
_TURN_S: Final = 2e-4
_ITEMS: Final = 16
"""Items between two reads of the clock: a document takes some 10 us."""


@final
class Turns:
    """Divides a long loop into turns of 0.2 ms, so that threads that serve requests run between
    them."""

    def __init__(self) -> None:
        self._end_s = time.perf_counter() + _TURN_S

    def offer(self) -> None:
        """Lets other threads run if the turn is over. Cheap: to be called every few steps."""
        if time.perf_counter() >= self._end_s:
            time.sleep(YIELD_S)
            self._end_s = time.perf_counter() + _TURN_S

    def between(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with an offer between every few of them."""
        for number, item in enumerate(items):
            if not number % _ITEMS:
                self.offer()
            yield item


class Stopped(Exception):
    """Raised inside a job to end it early: no failure."""


def check_stop(stop: Stop) -> None:
    """Raises Stopped when the job is to end."""
    if stop():
        raise Stopped


class _Alone:
    """Holds a lock for the frame of the `with` statement."""

    __slots__ = ("_frame", "_running", "_work")

    def __init__(self, running: CallLock) -> None:
        self._running = running
        self._work = long_work()

    def __enter__(self) -> None:
        self._frame = current_frame(1)
        self._work.__enter__()
        self._running.acquire(self._frame)

    def __exit__(self, *_: object) -> None:
        self._running.release(self._frame)
        self._work.__exit__(None, None, None)


@final
class Jobs:
    """A queue of jobs and the thread that runs them. Without `background` they wait for run()."""

    def __init__(
        self,
        name: str = "jobs",
        failures: Failures | None = None,
        *,
        is_outside: Callable[[], bool] = always,
        background: bool = True,
    ) -> None:
        """`is_outside` returns whether the calling thread may run a job (see Worker)."""
        self._failures = failures or Failures()
        self._background = background
        self._mutex = CallLock()
        """Guards the queue."""
        self._running = CallLock()
        """Held while a job runs."""
        self._jobs: dict[Job, str] = {}
        """By job: its name."""
        self._worker = Worker(f"amberdb-{name}", self._step, is_outside)
        self._is_closing = False

    def want(self, job: Job, name: str) -> None:
        """Queues a job; one that is queued already is not queued twice."""
        with self._mutex:
            if self._is_closing:
                return
            self._jobs[job] = name
        if self._background:
            self._worker.wake()

    def run(self) -> None:
        """Runs the queued jobs in the caller's thread, and waits for the one that the background
        thread is running. Raises what a job raises."""
        while (job := self._next()[0]) is not None:
            with long_work(), self._running:
                job(self._must_stop)
        with self._running:
            pass

    def alone(self) -> "_Alone":
        """A context in which no job runs."""
        return _Alone(self._running)

    def close(self) -> None:
        """Empties the queue and ends the thread. Returns when its job has ended."""
        with self._mutex:
            self._is_closing = True
            self._jobs.clear()
        if failpoints.on:
            failpoints.reach("close.stopping")
        self._worker.close()

    def _must_stop(self) -> bool:
        return self._is_closing

    def _next(self, *, due_only: bool = False) -> tuple[Job | None, str]:
        """Takes the next job from the queue, and its name."""
        with self._mutex:
            for job, name in self._jobs.items():
                if not due_only or not self._failures.left_s(job):
                    del self._jobs[job]
                    return job, name
        return None, ""

    def _step(self) -> float | None:
        """Runs one job that is due. Returns the seconds until the next one; None when the queue is
        empty."""
        job, name = self._next(due_only=True)
        if job is None:
            with self._mutex:
                return min(map(self._failures.left_s, self._jobs), default=None)
        try:
            with self._running:
                job(self._must_stop)
        except Stopped:
            pass
        except Exception as error:
            self._failures.note(job, name, error)
            with self._mutex:
                if not self._is_closing:
                    self._jobs.setdefault(job, name)
        else:
            self._failures.clear(job)
        return 0.0
