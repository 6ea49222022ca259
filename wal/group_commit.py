"""Group commit: one sync serves all threads that wait.

Invariants:
- `durable_lsn` only grows, and only to what was appended before a sync that succeeded.
- At most one call leads (syncs, or changes the file) at any time; one that was interrupted leads no
  more.
- Nothing is durable by a sync of a file whose directory has gone, or is another one by now.
- After a failed sync nothing syncs again: the page cache may have dropped the pages that it could
  not write, so a second sync that succeeds proves nothing.
"""

import logging
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter_ns
from types import FrameType
from typing import Final

from amberdb import _failpoints as failpoints
from amberdb._call_lock import CallLock, current_frame
from amberdb._errors import CommitUnknownError, ReplacedError
from amberdb._fs import File
from amberdb._types import Lsn, lsn_number

logger = logging.getLogger("amberdb.wal")


_SLOW_EVERY_NS = 10 * 1_000_000_000
"""The least time between two log lines about slow syncs."""
_LOOK_S: Final = 0.1
"""The longest time after which a waiter looks for a leader that was interrupted."""
_ANY_LSN = 1 << 64
"""The Lsn of a waiter that wants to lead: no sync satisfies it."""


class _Waiter:
    """A thread that waits for the leader, blocked on its own lock."""

    __slots__ = ("gate", "lsn")

    def __init__(self, lsn: int, gate: LockType) -> None:
        self.lsn = lsn
        self.gate = gate

    def wake(self) -> None:
        with suppress(RuntimeError):  # it is awake
            self.gate.release()


class _Lead:
    """A context that leads; the frame of its `with` is the holder."""

    __slots__ = ("_group", "_holder")

    def __init__(self, group: "GroupCommit") -> None:
        self._group = group

    def __enter__(self) -> None:
        self._holder = current_frame(1)
        while not self._group.take_lead(_ANY_LSN, self._holder):
            pass

    def __exit__(self, *_: object) -> None:
        self._group.hand_over(self._holder)


def _forget(waiters: "deque[_Waiter]", waiter: _Waiter) -> None:
    with suppress(ValueError):
        waiters.remove(waiter)


class GroupCommit:
    """The durable end of a log. A single waiter syncs in its own thread; of several, one leads and
    syncs everything that was appended so far."""

    def __init__(
        self,
        last_lsn: Lsn,
        slow_sync_ms: int,
        on_failed: Callable[[], None],
        check_lock: Callable[[], None],
    ) -> None:
        self.last_lsn = last_lsn
        """The last record that was written: the log sets it after each append."""
        self.durable_lsn = last_lsn
        self.failed: BaseException | None = None
        self.on_durable: Callable[[int, float], None] = _ignore
        """Called with the durable Lsn, and the microseconds of its sync, before any thread that
        waits for it returns."""
        self.file: File | None = None
        """The file to sync. Only the leader changes it."""
        self._on_failed = on_failed
        self._check_lock = check_lock
        self._slow_sync_us = slow_sync_ms * 1000
        self._leader = CallLock()
        """Held by the call that leads."""
        self._waiters: deque[_Waiter] = deque()
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
            # No name for the frame, which would be in a cycle with itself.
            if not self.take_lead(lsn, current_frame()):
                continue
            try:
                if self.durable_lsn < lsn:
                    if lsn > self.last_lsn:
                        raise ValueError(f"Lsn {lsn} was not appended")
                    self.sync_file()
            finally:
                self.hand_over(current_frame())

    def sync(self) -> None:
        """Makes everything appended so far durable. Raises CommitUnknownError."""
        self.wait(self.last_lsn)

    def wake_at(self, lsn: int, gate: LockType) -> None:
        """Releases the gate of a thread that waits elsewhere, once: when `durable_lsn >= lsn`, or
        when it is to lead. It calls forget() and wait() then."""
        waiter = _Waiter(lsn, gate)
        self._waiters.append(waiter)
        if self.durable_lsn >= lsn or self.failed is not None:  # before it was appended
            waiter.wake()

    def forget(self, gate: LockType) -> None:
        """Ends wake_at()."""
        for waiter in list(self._waiters):
            if waiter.gate is gate:
                _forget(self._waiters, waiter)

    def lead(self) -> "_Lead":
        """Inside the context no other call syncs, so that the file can be changed."""
        return _Lead(self)

    def take_lead(self, lsn: int, holder: FrameType) -> bool:
        """Waits while another call leads. Returns whether `holder` leads now; if not, the sync
        that it waited for has ended or failed."""
        leader = self._leader
        if leader.try_acquire(holder):
            return True
        waiters = self._waiters
        waiter = _Waiter(lsn, allocate_lock())
        waiter.gate.acquire()
        while True:
            waiters.append(waiter)  # before the next try: a hand-over before it is seen there
            if leader.try_acquire(holder):
                _forget(waiters, waiter)
                return True
            waiter.gate.acquire(timeout=_LOOK_S)  # it looks again: the leader may be interrupted
            _forget(waiters, waiter)
            if self.durable_lsn >= lsn or (self.failed is not None and lsn < _ANY_LSN):
                return False

    def hand_over(self, holder: FrameType) -> None:
        """Ends the lead, and wakes the waiters whose records are durable, and one other to lead.
        Waking all would cost each a switch of the interpreter only to find another leader."""
        waiters = self._waiters
        durable = _ANY_LSN - 1 if self.failed is not None else self.durable_lsn
        woken: list[_Waiter] = []
        has_heir = False
        for waiter in list(waiters):
            if waiter.lsn <= durable or not has_heir:
                has_heir = has_heir or waiter.lsn > durable
                woken.append(waiter)
        self._leader.release(holder)
        for waiter in woken:
            waiter.wake()
        if not has_heir:  # perhaps one that began to wait meanwhile
            for waiter in list(waiters)[:1]:
                waiter.wake()

    def sync_file(self) -> None:
        """Syncs all that was appended so far. Only the leader calls it. Raises
        CommitUnknownError, ReplacedError."""
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
        try:
            self._check_lock()  # after the sync: what is acknowledged is where its path leads
        except ReplacedError:
            self._on_failed()  # the next append looks again, since it may be back by then
            raise
        took_us = (perf_counter_ns() - began) / 1000
        if failpoints.on:
            failpoints.reach("commit.synced")
        self._syncs += 1
        self._synced_records += lsn_number(target) - lsn_number(self.durable_lsn)
        self.on_durable(target, took_us)
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


def _ignore(lsn: int, took_us: float) -> None:
    """The default of on_durable."""
