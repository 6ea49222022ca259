"""Group commit: one sync serves all threads that wait.

Invariants:
- `durable_lsn` only grows, and only to what was appended before a sync that succeeded.
- At most one thread leads (syncs, or changes the file) at any time.
- After a failed sync nothing syncs again: the page cache may have dropped the pages that it could
  not write, so a second sync that succeeds proves nothing.
"""

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import perf_counter_ns

from amberdb import _failpoints as failpoints
from amberdb._errors import CommitUnknownError
from amberdb._fs import File
from amberdb._types import Lsn, lsn_number

logger = logging.getLogger("amberdb.wal")


_SLOW_EVERY_NS = 10 * 1_000_000_000
"""The least time between two log lines about slow syncs."""
_ANY_LSN = 1 << 64
"""The Lsn of a waiter that wants to lead: no sync satisfies it."""


class _Waiter:
    """A thread that waits for the leader, blocked on its own lock."""

    __slots__ = ("gate", "leads", "lsn")

    def __init__(self, lsn: int) -> None:
        self.lsn = lsn
        self.leads = False
        self.gate = threading.Lock()
        self.gate.acquire()


class GroupCommit:
    """The durable end of a log. A single waiter syncs in its own thread; of several, one leads and
    syncs everything that was appended so far."""

    def __init__(self, last_lsn: Lsn, slow_sync_ms: int, on_failed: Callable[[], None]) -> None:
        self.last_lsn = last_lsn
        """The last record that was written: the log sets it after each append."""
        self.durable_lsn = last_lsn
        self.failed: BaseException | None = None
        self.on_durable: Callable[[int], None] = _ignore
        """Called with the durable Lsn before any thread that waits for it returns."""
        self.file: File | None = None
        """The file to sync. Only the leader changes it."""
        self._on_failed = on_failed
        self._slow_sync_us = slow_sync_ms * 1000
        self._mutex = threading.Lock()
        self._leading = False
        self._waiters: list[_Waiter] = []
        self._syncs = 0
        self._synced_records = 0
        self._sync_us_last = 0.0
        self._sync_us_max = 0.0
        self._sync_us_total = 0.0
        self._slow_logged_ns = -_SLOW_EVERY_NS
        self._slow_unlogged = 0

    def wait(self, lsn: int) -> None:
        """Returns when `durable_lsn >= lsn`. Raises CommitUnknownError after a failed sync."""
        while self.durable_lsn < lsn:
            if not self._takes_lead(lsn):
                continue
            try:
                if self.durable_lsn < lsn:
                    if lsn > self.last_lsn:
                        raise ValueError(f"Lsn {lsn} was not appended")
                    self.sync_file()
            finally:
                self._hand_over()

    def sync(self) -> None:
        """Makes everything appended so far durable. Raises CommitUnknownError."""
        self.wait(self.last_lsn)

    @contextmanager
    def lead(self) -> Generator[None, None, None]:
        """Keeps every other thread from syncing, so that the file can be changed."""
        while not self._takes_lead(_ANY_LSN):
            pass
        try:
            yield
        finally:
            self._hand_over()

    def _takes_lead(self, lsn: int) -> bool:
        """Waits while another thread leads. Returns whether this thread leads now; if not, the
        sync that it waited for has ended or failed."""
        with self._mutex:
            if not self._leading:
                self._leading = True
                return True
            waiter = _Waiter(lsn)
            self._waiters.append(waiter)
        try:
            waiter.gate.acquire()
        except BaseException:
            with self._mutex:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
            if waiter.leads:
                self._hand_over()
            raise
        return waiter.leads

    def _hand_over(self) -> None:
        """Wakes the waiters whose records are durable, and one other to lead. Waking all would
        cost each a switch of the interpreter only to find another leader."""
        with self._mutex:
            waiters = self._waiters
            if not waiters:
                self._leading = False
                return
            durable = _ANY_LSN - 1 if self.failed is not None else self.durable_lsn
            woken = [waiter for waiter in waiters if waiter.lsn <= durable]
            left = [waiter for waiter in waiters if waiter.lsn > durable]
            self._leading = bool(left)
            if left:
                heir = left.pop(0)
                heir.leads = True
                woken.append(heir)
            self._waiters = left
        for waiter in woken:
            waiter.gate.release()

    def sync_file(self) -> None:
        """Syncs all that was appended so far. Only the leader calls it. Raises
        CommitUnknownError."""
        if self.failed is not None:
            raise CommitUnknownError(
                "an earlier write or sync of the log failed; reopen to learn what was kept",
                lsn=self.last_lsn,
            ) from self.failed
        target = self.last_lsn  # read before the file: an older file is durable already
        file = self.file
        assert file is not None, "all is durable while no file is open"
        if failpoints.on:
            failpoints.reach("commit.before-sync")
        began = perf_counter_ns()
        try:
            file.sync()
        except OSError as error:
            self.poison(error)
            raise CommitUnknownError(
                f"the sync of the log failed: {error}; reopen to learn what was kept", lsn=target
            ) from error
        took_us = (perf_counter_ns() - began) / 1000
        if failpoints.on:
            failpoints.reach("commit.synced")
        self._syncs += 1
        self._synced_records += lsn_number(target) - lsn_number(self.durable_lsn)
        self.on_durable(target)
        self.durable_lsn = target
        self._sync_us_last = took_us
        self._sync_us_total += took_us
        if took_us > self._sync_us_max:
            self._sync_us_max = took_us
        if took_us > self._slow_sync_us:
            self._note_slow(took_us / 1000)

    def _note_slow(self, took_ms: float) -> None:
        """Logs a slow sync, at most once in _SLOW_EVERY_NS."""
        now_ns = perf_counter_ns()
        if now_ns - self._slow_logged_ns < _SLOW_EVERY_NS:
            self._slow_unlogged += 1
            return
        logger.warning(
            "slow sync of the log: %.0f ms (and %d more since the last such line)",
            took_ms,
            self._slow_unlogged,
        )
        self._slow_logged_ns, self._slow_unlogged = now_ns, 0

    def stats(self) -> dict[str, int | float]:
        syncs = self._syncs
        return {
            "syncs": syncs,
            "sync_us_last": self._sync_us_last,
            "sync_us_mean": self._sync_us_total / syncs if syncs else 0.0,
            "sync_us_max": self._sync_us_max,
            "records_per_sync": self._synced_records / syncs if syncs else 0.0,
        }

    def poison(self, error: BaseException) -> None:
        """No more writes and no more acknowledgements until the log is reopened."""
        if self.failed is None:
            self.failed = error
            logger.error("the log accepts no more writes until it is reopened: %s", error)
        self._on_failed()


def _ignore(lsn: int) -> None:
    """The default of on_durable."""
