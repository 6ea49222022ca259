"""A thread for long work, one job after the other: one for the graphs and cache files of vectors,
another for what looks after the files of a database.

Invariants:
- It starts when there is something to do and ends when that is done: an idle database has none.
- Jobs run one after the other, so what one of them takes of memory or disk is all there is.
- close() waits only until the job has seen that it is to stop.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, TypeAlias, final

from amberdb import _failpoints as failpoints
from amberdb._errors import AmberError

logger = logging.getLogger("amberdb.engine")

Stop: TypeAlias = Callable[[], bool]
Job: TypeAlias = Callable[[Stop], None]


YIELD_S: Final = 5e-5
"""A sleep that gives the interpreter to a thread that waits for it, who would get it after 5 ms
otherwise. sleep(0) would take it back before that one has woken up."""
_TURN_S: Final = 2e-4


@final
class Turns:
    """For a long loop beside threads that serve somebody: a turn lasts 0.2 ms."""

    def __init__(self) -> None:
        self._end_s = time.perf_counter() + _TURN_S

    def offer(self) -> None:
        """To be called often, and between any two steps."""
        if time.perf_counter() >= self._end_s:
            time.sleep(YIELD_S)
            self._end_s = time.perf_counter() + _TURN_S


class Stopped(Exception):
    """Raised inside of a job to end it early: no failure."""


def check_stop(stop: Stop) -> None:
    """Raises Stopped when the job is to end."""
    if stop():
        raise Stopped


@final
class Jobs:
    """Owned by the Database. Without `background` jobs wait for run()."""

    def __init__(self, name: str = "jobs", *, background: bool = True) -> None:
        self._name = name
        self._background = background
        self._mutex = threading.Lock()
        self._running = threading.Lock()
        self._jobs: dict[Job, None] = {}
        self._thread: threading.Thread | None = None
        self._closing = False

    def want(self, job: Job) -> None:
        """Runs it soon; one that waits already is not run twice."""
        with self._mutex:
            if self._closing:
                return
            self._jobs[job] = None
            if not self._background or self._thread is not None:
                return
            self._thread = threading.Thread(
                target=self._run, name=f"amberdb-{self._name}", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # no thread starts while the interpreter ends
                self._thread = None

    def run(self) -> None:
        """Does what waits now, in this thread, and waits for what the other one is doing. Raises
        what a job raises."""
        while (job := self._next()) is not None:
            with self._running:
                job(self._is_closing)
        with self._running:
            pass

    @contextmanager
    def alone(self) -> Generator[None]:
        """Inside, no job runs."""
        with self._running:
            yield

    def close(self) -> None:
        """Returns when no job runs; none will any more."""
        with self._mutex:
            self._closing = True
            self._jobs.clear()
            thread = self._thread
        if failpoints.on:
            failpoints.reach("close.stopping")
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _is_closing(self) -> bool:
        return self._closing

    def _next(self) -> Job | None:
        with self._mutex:
            job = next(iter(self._jobs), None)
            if job is not None:
                del self._jobs[job]
            elif threading.current_thread() is self._thread:
                self._thread = None
            return job

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                with self._running:
                    job(self._is_closing)
            except Stopped:
                pass
            except AmberError as error:
                logger.warning("%s: a job failed and will be tried again: %s", self._name, error)
            except Exception:
                logger.exception("%s: a job failed", self._name)
