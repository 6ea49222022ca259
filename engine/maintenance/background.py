"""The background thread: checkpoints, index builds, and the removal of what has expired.

Invariants:
- It starts when there is first something to do, and sleeps without a timeout when nothing is
  due: an idle database wakes nobody.
- What fails is logged and tried again later; nothing acknowledged depends on it.
- The reaper removes a document only when it was expired by the clock both before and after a
  grace period of a clock that cannot jump, so a wrong clock that is soon mended destroys nothing.
"""

import logging
import threading
import time
import weakref
from collections.abc import Callable

from amberdb._errors import AmberError, MigrationError
from amberdb.engine.commit.checkpoint import Checkpointer
from amberdb.engine.commit.committer import Committer
from amberdb.engine.database.transaction import Snapshot
from amberdb.engine.database.upkeep import Upkeep
from amberdb.engine.maintenance.expiry import ExpiryWorker
from amberdb.engine.maintenance.index_build import Indexer
from amberdb.engine.options import Options
from amberdb.engine.schema.document_format import NEVER
from amberdb.engine.storage.held_view import held

logger = logging.getLogger("amberdb.engine")

_RETRY_S = 1.0


class Background:
    """Owned by the Database."""

    def __init__(
        self,
        committer: Committer,
        checkpointer: Checkpointer,
        indexer: Indexer,
        reaper: ExpiryWorker,
        upkeep: Upkeep,
        snapshots: "weakref.WeakSet[Snapshot]",
        options: Options,
    ) -> None:
        self._committer = committer
        self._checkpointer = checkpointer
        self._indexer = indexer
        self._reaper = reaper
        self._upkeep = upkeep
        self._snapshots = snapshots
        self._options = options
        self._checkpoint_bytes = options.checkpoint_bytes
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._is_armed = False
        """The age of the oldest commit in the memtable is being watched."""
        self._checkpoint_at: float | None = None
        self._index_at: float | None = None
        self._reap_at: float | None = None
        self._next_expiry_us = NEVER

    # -- called by others --------------------------------------------------------------------

    def note_commit(self, memtable_bytes: int, next_expiry_us: int) -> None:
        """After every commit: cheap when there is nothing new to do."""
        if (
            self._is_armed
            and memtable_bytes < self._checkpoint_bytes
            and next_expiry_us >= self._next_expiry_us
        ):
            return
        if not self._options.background:
            if memtable_bytes > self._options.memtable_bytes_max:
                # The commit behind this call is acknowledged, so a failure is the next one's.
                self._do("checkpoint", self._checkpointer.run)
            return
        with self._wake:
            now = time.monotonic()
            if self._checkpoint_at is not None and self._committer.checkpoint_failure is not None:
                pass  # the time of the next try is set
            elif memtable_bytes >= self._checkpoint_bytes:
                self._checkpoint_at = now
            elif self._checkpoint_at is None:
                self._checkpoint_at = now + self._options.checkpoint_interval_ms / 1000
            self._is_armed = True
            self._note_expiry(next_expiry_us)
            self._start()

    def note_indexes(self) -> None:
        """A declaration has left something to build or to purge."""
        if self._options.background and self._indexer.has_news():
            with self._wake:
                self._index_at = time.monotonic()
                self._start()

    def note_expiry(self) -> None:
        """At open: when the first document expires."""
        if self._options.background:
            next_expiry_us = self._reaper.next_expiry_us()
            if next_expiry_us != NEVER:
                with self._wake:
                    self._note_expiry(next_expiry_us)
                    self._start()

    def note_upkeep(self) -> None:
        """At open, and when a job has ended: what falls due later is waited for."""
        if self._options.background and self._upkeep.due_s() is not None:
            with self._wake:
                self._start()

    def note_snapshot(self) -> None:
        """A snapshot was taken: its age is watched."""
        if self._options.background:
            with self._wake:
                self._start()

    def stop(self) -> None:
        """Returns when the thread has ended; called once, by close()."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # -- the thread --------------------------------------------------------------------------

    def _start(self) -> None:
        """With `_wake` held: wakes the thread, or starts it."""
        if self._closing:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="amberdb", daemon=True)
            self._thread.start()
        else:
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._closing:
                    self._wake.wait(self._sleep_s())
                if self._closing:
                    return
            self._do("checkpoint", self._checkpoint)
            self._do("index build", self._index)
            self._do("removal of expired documents", self._reap)
            self._do("upkeep", self._upkeep.step)
            for snapshot in held(self._snapshots):
                snapshot.expire()

    def _sleep_s(self) -> float | None:
        due = [at for at in (self._checkpoint_at, self._index_at, self._reap_at) if at is not None]
        now = time.monotonic()
        left = [at - now for at in due]
        upkeep_s = self._upkeep.due_s()
        if upkeep_s is not None:
            left.append(min(upkeep_s, threading.TIMEOUT_MAX / 4))
        left += [snapshot.left_s for snapshot in held(self._snapshots)]
        return max(0.0, min(left)) if left else None

    def _do(self, what: str, job: Callable[[], None]) -> None:
        try:
            job()
        except AmberError as error:
            logger.warning("%s failed and will be tried again: %s", what, error)
        except Exception:
            logger.exception("%s failed", what)

    def _checkpoint(self) -> None:
        if not _is_due(self._checkpoint_at):
            return
        with self._wake:
            self._checkpoint_at = None
            self._is_armed = False
        try:
            self._checkpointer.run()
        except BaseException:
            if self._committer.log.failed is None:  # else only reopening helps
                with self._wake:
                    self._checkpoint_at = time.monotonic() + _RETRY_S
            raise

    def _index(self) -> None:
        if not _is_due(self._index_at):
            return
        with self._wake:
            self._index_at = None  # first, so that a declaration meanwhile is not forgotten
        try:
            self._indexer.run(stop=lambda: self._closing)
        except MigrationError as error:  # named in the log already; only a new function helps
            logger.warning("a migration has not come to its end: %s", error)
        except BaseException:
            with self._wake:
                self._index_at = time.monotonic() + _RETRY_S
            raise

    def _reap(self) -> None:
        if not _is_due(self._reap_at):
            return
        with self._wake:
            self._reap_at = time.monotonic() + self._options.reap_interval_ms / 1000
            self._next_expiry_us = NEVER
        again_s = self._reaper.step(stop=lambda: self._closing)
        with self._wake:
            if again_s is not None:
                self._reap_at = time.monotonic() + again_s
            else:
                self._reap_at = None
                self._next_expiry_us = NEVER  # or what a commit noted meanwhile is forgotten
                self._note_expiry(self._reaper.next_expiry_us())

    def _note_expiry(self, next_expiry_us: int) -> None:
        """With `_wake` held."""
        if next_expiry_us < self._next_expiry_us:
            self._next_expiry_us = next_expiry_us
            in_s = (next_expiry_us - self._committer.now_us()) / 1_000_000
            at = time.monotonic() + max(in_s, 0.0)
            if self._reap_at is None or at < self._reap_at:
                self._reap_at = min(at, time.monotonic() + threading.TIMEOUT_MAX / 4)


def _is_due(at: float | None) -> bool:
    return at is not None and at <= time.monotonic()
