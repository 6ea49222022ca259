"""Group commit: one sync serves all who wait.

Invariants:
- `durable_lsn` only grows, and only to what was appended before a sync that succeeded.
- At most one thread leads (syncs, or changes the file) at any time.
- After a failed sync nothing syncs again: the page cache may have dropped what it could not
  write, so a second sync that succeeds proves nothing.
"""

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter_ns

from amberdb._errors import CommitUnknownError
from amberdb._fs import File
from amberdb._types import Lsn, lsn_number

logger = logging.getLogger("amberdb.wal")


class GroupCommit:
    """The durable end of a log. Whoever waits alone syncs in its own thread; of several, one
    leads and syncs for all that was appended so far."""

    def __init__(self, last_lsn: Lsn, slow_sync_ms: int) -> None:
        self.last_lsn = last_lsn
        self.durable_lsn = last_lsn
        self.failed: BaseException | None = None
        self._file: File | None = None
        self._slow_sync_us = slow_sync_ms * 1000
        self._mutex = threading.Lock()
        self._leading = False
        self._gates: list[threading.Lock] = []
        self._syncs = 0
        self._synced_records = 0
        self._sync_us_last = 0.0
        self._sync_us_max = 0.0

    def wait(self, lsn: int) -> None:
        """Returns when `durable_lsn >= lsn`. Raises CommitUnknownError after a failed sync."""
        while self.durable_lsn < lsn:
            gate = None
            with self._mutex:
                if self._leading:
                    gate = threading.Lock()
                    gate.acquire()
                    self._gates.append(gate)
                else:
                    self._leading = True
            if gate is not None:
                gate.acquire()  # the leader opens it, whatever came of the sync
                continue
            try:
                if self.durable_lsn < lsn:
                    if lsn > self.last_lsn:
                        raise ValueError(f"Lsn {lsn} was not appended")
                    self._sync_file()
            finally:
                self._hand_over()

    def sync(self) -> None:
        """Makes everything appended so far durable. Raises CommitUnknownError."""
        self.wait(self.last_lsn)

    @contextmanager
    def _lead(self) -> Generator[None, None, None]:
        """Keeps every other thread from syncing, so that the file can be changed."""
        while True:
            gate = None
            with self._mutex:
                if not self._leading:
                    self._leading = True
                    break
                gate = threading.Lock()
                gate.acquire()
                self._gates.append(gate)
            gate.acquire()
        try:
            yield
        finally:
            self._hand_over()

    def _hand_over(self) -> None:
        with self._mutex:
            self._leading = False
            gates = self._gates
            if not gates:
                return  # with the list itself: the next leader's waiters go into it
            self._gates = []
        for gate in gates:
            gate.release()

    def _sync_file(self) -> None:
        """The leader's work."""
        if self.failed is not None:
            raise CommitUnknownError(
                "an earlier write or sync of the log failed; reopen to learn what was kept",
                lsn=self.last_lsn,
            ) from self.failed
        target = self.last_lsn  # before the file: what is in an older file is durable already
        file = self._file
        assert file is not None, "all is durable while no file is open"
        began = perf_counter_ns()
        try:
            file.sync()
        except OSError as error:
            self.poison(error)
            raise CommitUnknownError(
                f"the sync of the log failed: {error}; reopen to learn what was kept", lsn=target
            ) from error
        took_us = (perf_counter_ns() - began) / 1000
        self._syncs += 1
        self._synced_records += lsn_number(target) - lsn_number(self.durable_lsn)
        self.durable_lsn = target
        self._sync_us_last = took_us
        if took_us > self._sync_us_max:
            self._sync_us_max = took_us
        if took_us > self._slow_sync_us:
            logger.warning("slow sync of the log: %.0f ms", took_us / 1000)

    def poison(self, error: BaseException) -> None:
        """No more writes and no more acknowledgements until the log is reopened."""
        if self.failed is None:
            self.failed = error
            logger.error("the log accepts no more writes until it is reopened: %s", error)
