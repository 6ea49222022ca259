"""The background thread: replayed texts, checkpoints, index builds, and the removal of expired
documents.

Invariants:
- It starts with the first work, and sleeps without a timeout when nothing is due: an idle database
  wakes no thread.
- Work that fails is logged, listed in stats() and tried again later; nothing acknowledged depends
  on it, and no other work.
- Where the thread cannot be started, commits do what is due, and try to start it again.
- An expired document is removed only if it was expired by the clock both before and after a grace
  period measured by a monotonic clock: a wrong clock that is soon corrected destroys nothing.
"""

import time
from collections.abc import Callable

from amberdb._call_lock import CallLock
from amberdb._worker import FOREVER, Worker
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer
from amberdb.engine.failures import Failures
from amberdb.engine.jobs import Turns
from amberdb.engine.maintenance.expiry import ExpiryWorker
from amberdb.engine.maintenance.index_build import Indexer
from amberdb.engine.maintenance.maintenance import Maintenance
from amberdb.engine.options import Options
from amberdb.engine.schema.document_format import NEVER
from amberdb.engine.storage.memtable import Memtable

_ROWS = 8
"""Texts that are analyzed before other threads get a turn."""
_QUIET_S = 1.0
"""After an open: the checkpoint of what was replayed waits, so that the first calls have the
interpreter to themselves."""
_RETRY_S = 1.0
"""Between attempts of a checkpoint, and of other work that could not begin."""


class Background:
    """Schedules the periodic work of an open database."""

    def __init__(
        self,
        committer: Committer,
        checkpointer: Checkpointer,
        indexer: Indexer,
        expiry: ExpiryWorker,
        maintenance: Maintenance,
        failures: Failures,
        options: Options,
    ) -> None:
        self._committer = committer
        self._checkpointer = checkpointer
        self._indexer = indexer
        self._expiry = expiry
        self._maintenance = maintenance
        self._failures = failures
        self._options = options
        self._due_bytes = checkpointer.start_bytes
        """The memory of the memtables that makes a checkpoint due at once."""
        self._worker = Worker("amberdb", self._step, committer.is_outside)
        self._mutex = CallLock()
        """Guards the times below."""
        self._is_armed = False
        """A time for the next checkpoint is set."""
        self._checkpoint_at: float | None = None
        self._rows_at: float | None = None
        self._index_at: float | None = None
        self._expire_at: float | None = None
        self._next_expiry_us = NEVER

    # -- called by others --------------------------------------------------------------------

    def note_commit(self, memtable_bytes: int, next_expiry_us: int) -> None:
        """Called after every commit; cheap if it makes nothing due."""
        if (
            self._is_armed
            and memtable_bytes < self._due_bytes
            and next_expiry_us >= self._next_expiry_us
        ):
            return
        if not self._options.background:
            if memtable_bytes > self._options.memtable_bytes_max:
                # The commit before this call is acknowledged, so the next one raises a failure.
                self._do("a checkpoint", self._checkpointer.run)
            return
        with self._mutex:
            now = time.monotonic()
            if self._checkpoint_at is not None and self._committer.checkpoint_failure is not None:
                pass  # the time of the next attempt is set
            elif memtable_bytes >= self._due_bytes:
                self._checkpoint_at = now
            elif self._checkpoint_at is None:
                self._checkpoint_at = now + self._options.checkpoint_interval_ms / 1000
            self._is_armed = True
            self._note_expiry(next_expiry_us)
        self._wake()

    def count_commit(self, memtable_bytes: int, next_expiry_us: int) -> None:
        """note_commit(), where the number of commits can make a backup due."""
        if self._committer.visible >= self._maintenance.due_lsn:
            self._wake()
        self.note_commit(memtable_bytes, next_expiry_us)

    def note_indexes(self) -> None:
        """Called where indexes may be left to build or to purge; looks at all collections."""
        if self._options.background and self._note_indexes():
            self._wake()

    def note_declared(self) -> None:
        """Called after a declaration that leaves something to build or to purge: the thread looks
        for it, and not the caller."""
        if self._options.background:
            with self._mutex:
                self._index_at = time.monotonic()
            self._wake()

    def note_expiry(self) -> None:
        """Called at open: schedules the removal of the first document that expires."""
        if self._options.background:
            next_expiry_us = self._expiry.next_expiry_us()
            if next_expiry_us != NEVER:
                with self._mutex:
                    self._note_expiry(next_expiry_us)
                self._wake()

    def note_replayed(self, memtable: Memtable) -> None:
        """Called at open: schedules the checkpoint of the memtable, which was replayed. Its texts
        are analyzed before a search needs them."""
        start_bytes, size_bytes = self._checkpointer.start_bytes, memtable.size_bytes
        if self._options.background and size_bytes >= start_bytes:
            self._due_bytes = max(start_bytes, self._options.memtable_bytes_max // 2)
            with self._mutex:
                self._checkpoint_at = time.monotonic() + _QUIET_S
                self._is_armed = True
            self._wake()
        self.note_commit(size_bytes, NEVER)
        row_indexes = self._committer.state.catalog.row_indexes
        has_texts = any(row_indexes[prefix].is_text for prefix in memtable.rows)
        if self._options.background and has_texts:
            with self._mutex:
                self._rows_at = time.monotonic()
            self._wake()

    def note_maintenance(self) -> None:
        """Called at open and after a job: sleeps until the next maintenance is due."""
        if self._options.background and self._maintenance.due_s() is not None:
            self._wake()

    def stop(self) -> None:
        """Called once, by close(). Returns when the thread has ended."""
        self._worker.close()

    # -- in the background thread -------------------------------------------------------------

    def _wake(self) -> None:
        """Wakes the thread. This one does the checkpoint if there is no other to do it."""
        if self._worker.is_current() or not self._worker.wake():
            self._is_armed = False  # so that the next commit tries again to start the thread
            if _is_due(self._checkpoint_at):
                self._do("a checkpoint", self._checkpoint)

    def _step(self) -> float:
        for at, name, job in (
            (self._rows_at, "the analysis of replayed texts", self._add_rows),
            (self._checkpoint_at, "a checkpoint", self._checkpoint),
            (self._index_at, "the building of indexes", self._index),
            (self._expire_at, "the removal of expired documents", self._expire),
        ):
            if _is_due(at):
                self._do(name, job)
        self._do("maintenance", self._maintenance.step)
        return self._sleep_s()

    def _sleep_s(self) -> float:
        times = (self._checkpoint_at, self._index_at, self._expire_at)
        now = time.monotonic()
        left_s = [time_s - now for time_s in times if time_s is not None]
        maintenance_s = self._maintenance.due_s()
        if maintenance_s is not None:
            left_s.append(maintenance_s)
        return max(0.0, min(left_s)) if left_s else FOREVER

    def _do(self, name: str, job: Callable[[], None]) -> None:
        if self._worker.is_closing:
            return
        try:
            job()
        except Exception as error:
            self._failures.note(name, name, error, first_s=_RETRY_S, max_s=_RETRY_S)
        else:
            self._failures.clear(name)

    def _add_rows(self) -> None:
        from amberdb.engine.search.segments import add_rows  # imports numpy

        with self._mutex:
            self._rows_at = None
        state = self._committer.state
        turns = Turns()
        while add_rows(state.active, state.catalog.row_indexes, _ROWS) and not self._is_closing():
            turns.offer()

    def _checkpoint(self) -> None:
        with self._mutex:
            self._checkpoint_at = None
            self._is_armed = False
            self._due_bytes = self._checkpointer.start_bytes
        try:
            self._checkpointer.run()
        except BaseException:
            if self._committer.log.failed is None:  # otherwise only reopening helps
                with self._mutex:
                    self._checkpoint_at = time.monotonic() + _RETRY_S
            raise

    def _index(self) -> None:
        with self._mutex:
            self._index_at = None  # before the run, so that a declaration during it counts
        try:
            self._indexer.step(stop=self._is_closing)
        except BaseException:
            with self._mutex:
                self._index_at = time.monotonic() + _RETRY_S
            raise
        self._note_indexes()

    def _note_indexes(self) -> bool:
        """Sets the time of the next build; False when nothing is to be built."""
        due_s = self._indexer.due_s()
        if due_s is None:
            return False
        with self._mutex:
            index_at = time.monotonic() + due_s
            if self._index_at is None or index_at < self._index_at:
                self._index_at = index_at
        return True

    def _expire(self) -> None:
        with self._mutex:
            self._expire_at = time.monotonic() + self._options.reap_interval_ms / 1000
            self._next_expiry_us = NEVER
        again_s = self._expiry.step(stop=self._is_closing)
        with self._mutex:
            if again_s is not None:
                self._expire_at = time.monotonic() + again_s
            else:
                self._expire_at = None
                self._next_expiry_us = NEVER  # so that the next line sets the time in any case
                self._note_expiry(self._expiry.next_expiry_us())
                retry_s = self._expiry.retry_s()
                if retry_s is not None:
                    retry_at = time.monotonic() + retry_s
                    self._expire_at = min(retry_at, self._expire_at or retry_at)

    def _is_closing(self) -> bool:
        return self._worker.is_closing

    def _note_expiry(self, next_expiry_us: int) -> None:
        """Schedules the removal of a document that expires; `_mutex` is held."""
        if next_expiry_us < self._next_expiry_us:
            self._next_expiry_us = next_expiry_us
            expire_at = time.monotonic() + self._expiry.due_in_s(next_expiry_us)
            if self._expire_at is None or expire_at < self._expire_at:
                self._expire_at = expire_at


def _is_due(time_s: float | None) -> bool:
    return time_s is not None and time_s <= time.monotonic()
