"""A check of the database in a thread, whose progress can be looked at.

Invariants:
- One check runs at a time; start() while one runs changes nothing.
"""

import threading
import time
from dataclasses import dataclass
from typing import final

from amberdb import AmberError, CheckReport, Database


@final
@dataclass(frozen=True, slots=True)
class CheckState:
    """How far the check is."""

    is_running: bool = False
    step: str = ""
    """The collection or the index in work."""
    count: int = 0
    """Documents or entries done there."""
    steps_done: int = 0
    elapsed_s: float = 0.0
    report: CheckReport | None = None
    """Of the last check that ended."""
    error: str | None = None


@final
class Checking:
    """The checks of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None
        self._began = self._ended = 0.0
        self._step, self._count, self._steps_done = "", 0, 0
        self._report: CheckReport | None = None
        self._error: str | None = None

    def start(self) -> None:
        """Begins a check, unless one runs."""
        with self._mutex:
            if self._thread is not None and self._thread.is_alive():
                return
            self._began, self._ended = time.monotonic(), 0.0
            self._step, self._count, self._steps_done = "", 0, 0
            self._report = self._error = None
            self._thread = threading.Thread(target=self._run, name="amberdb check", daemon=True)
            self._thread.start()

    def state(self) -> CheckState:
        """How far it is now."""
        is_running = self._thread is not None and self._ended == 0.0
        ended = self._ended or time.monotonic()
        return CheckState(
            is_running=is_running,
            step=self._step,
            count=self._count,
            steps_done=self._steps_done,
            elapsed_s=ended - self._began if self._began else 0.0,
            report=self._report,
            error=self._error,
        )

    def wait(self) -> None:
        """Returns when no check runs."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._report = self._db.check(self._note)
        except AmberError as error:
            self._error = error.message
        finally:
            self._ended = time.monotonic()

    def _note(self, step: str, count: int) -> None:
        if step != self._step:
            self._steps_done += bool(self._step)
        self._step, self._count = step, count
