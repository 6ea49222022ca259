"""Failures: which background jobs have failed, and when each is tried again.

Invariants:
- A job fails alone: the pauses between its attempts grow, and no other job waits for it.
- A failure is listed until its job has succeeded, or is no longer there to be done.
"""

import logging
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final, final

from amberdb._call_lock import CallLock
from amberdb._errors import AmberError
from amberdb._public import public

logger = logging.getLogger("amberdb.engine")

PAUSE_S: Final = 1.0
"""After the first failure of a job; doubled after each, up to PAUSE_MAX_S."""
PAUSE_MAX_S: Final = 300.0


@public
@final
@dataclass(frozen=True, slots=True)
class JobFailure:
    """A background job whose last attempt failed. It is tried again."""

    job: str
    """The job and its object: "index ordered:age of collection 'person'"."""
    error: str
    attempts: int
    """Attempts since it last succeeded, or since the database was opened."""
    retry_in_s: float

    def __str__(self) -> str:
        return f"{self.job}: failed {self.attempts} times, and is tried again: {self.error}"


@dataclass(slots=True)
class _Failed:
    job: str
    error: Exception
    attempts: int
    retry_at: float
    is_pending: Callable[[], bool]


def _always() -> bool:
    """The default of note()'s `is_pending`: the job is there until it has succeeded."""
    return True


@final
class Failures:
    """The failed jobs of an open database, each by its key. Threads may share it."""

    def __init__(self) -> None:
        self._mutex = CallLock()
        self._by_key: dict[Hashable, _Failed] = {}

    def note(
        self,
        key: Hashable,
        job: str,
        error: Exception,
        *,
        is_pending: Callable[[], bool] = _always,
        first_s: float | None = None,
        max_s: float | None = None,
        is_logged: bool = True,
    ) -> float:
        """Takes the error of an attempt. Returns the seconds until the next one.

        `is_pending` returns whether the job is still to be done; `first_s` is the first pause, and
        `max_s` the longest.
        """
        with self._mutex:
            before = self._by_key.get(key)
            attempts = 1 if before is None else before.attempts + 1
            first_s = PAUSE_S if first_s is None else first_s
            max_s = PAUSE_MAX_S if max_s is None else max_s
            pause_s = min(first_s * (1 << min(attempts - 1, 30)), max_s)
            retry_at = time.monotonic() + pause_s
            self._by_key[key] = _Failed(job, error, attempts, retry_at, is_pending)
        if is_logged:
            text = "%s failed, and is tried again in %.0f s: %s"
            known = isinstance(error, AmberError)
            logger.log(
                logging.WARNING if known else logging.ERROR,
                text, job, pause_s, error, exc_info=None if known else error,
            )  # fmt: skip
        return pause_s

    def clear(self, key: Hashable) -> None:
        """The job has succeeded."""
        if key in self._by_key:
            with self._mutex:
                self._by_key.pop(key, None)

    def left_s(self, key: Hashable) -> float:
        """Seconds until the next attempt of a job; 0.0 for a job that has not failed."""
        failed = self._by_key.get(key)
        if failed is None or not failed.is_pending():  # a new one may have the key of an old one
            return 0.0
        return max(0.0, failed.retry_at - time.monotonic())

    def retry_s(self, keys: Iterable[Hashable]) -> float | None:
        """Seconds until the first of these jobs that has failed is tried again; None when none
        has."""
        return min((self.left_s(key) for key in keys if key in self._by_key), default=None)

    def listed(self) -> list[JobFailure]:
        """The failures of all jobs that are still to be done."""
        with self._mutex:
            failures = list(self._by_key.items())
        gone = [key for key, failed in failures if not failed.is_pending()]
        for key in gone:
            self.clear(key)
        now = time.monotonic()
        return [
            JobFailure(each.job, str(each.error), each.attempts, max(0.0, each.retry_at - now))
            for key, each in failures
            if key not in gone
        ]
