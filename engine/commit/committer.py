"""The committer: the writer lock, and the steps of a commit until it is acknowledged.

    begin -> WriteBatch -> effects -> log record -> memtable -> lock released -> synced -> visible

Invariants:
- One writer at a time; Lsns are given and published in order.
- The thread that holds the lock with write() makes the writes that wait for it: queued_write.py.
- A commit becomes visible, and is acknowledged, once its own durability class and that of every
  earlier commit are met.
- A call that is interrupted leaves no lock behind (see _call_lock.py). Before the append its batch
  is dropped; from the append on the commit is completed, by the next holder of the lock.
- A view begins its LMDB transaction before it reads the visible Lsn, and a checkpoint makes its
  Lsns visible before it commits to LMDB. So LMDB never holds a commit that the view must not see.
"""

import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NoReturn, TypeVar

from amberdb import _failpoints as failpoints
from amberdb._call_lock import CallLock, Holder, Signal, Waiter, current_frame, has_ended
from amberdb._errors import (
    AmberError,
    BusyError,
    PoisonedError,
    StorageError,
    TransactionError,
)
from amberdb._types import Lsn, Sync
from amberdb.engine.commit.clock import Clock
from amberdb.engine.commit.minutes import Minutes
from amberdb.engine.commit.queued_write import Commit, QueuedWrite, Read, Work
from amberdb.engine.commit.write_batch import FullBatch, WriteBatch
from amberdb.engine.options import Options, check_sync
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.codec import encode
from amberdb.engine.schema.document_format import NEVER
from amberdb.engine.schema.keyspace import CLOCK, Effects
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.readable import Owner
from amberdb.engine.storage.status import Status
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.view import NEWEST, ClosedState, LazyTransaction, Pending, State, View
from amberdb.wal import Log

_T = TypeVar("_T")


class Committer:
    """The state of a database that this process writes, and the only way to change it. Threads may
    share it."""

    def __init__(
        self,
        store: Store,
        log: Log,
        memtable: Memtable,
        built: frozenset[int],
        catalog: Catalog,
        clock: Clock,
        status: Status,
        options: Options,
    ) -> None:
        self.store = store
        self.log = log
        self.state = State(memtable, None, built, catalog)
        self.visible: int = log.last_lsn
        self.checkpoint_failure: StorageError | None = None
        self._published: int = log.last_lsn
        self.clock = clock
        self._status = status
        self.minutes = Minutes(status.minutes, log, store.file_bytes, clock.last_us)
        log.on_durable(self._synced)
        self._options = options
        self._lock = CallLock()
        """The writer lock."""
        self._owner = 0
        """The thread that took it."""
        self._unfinished: Commit | None = None
        """The commit that is being appended and applied."""
        self._publishing = CallLock()
        """Guards the visible Lsn."""
        self._progress = Signal()
        """Announced when a checkpoint ends, and when the visible Lsn grows while a thread waits."""
        self._followers = False
        """A thread has waited for a commit."""
        self._batch: type[WriteBatch] = WriteBatch
        """FullBatch while the database is at its limit."""
        self._closed: AmberError | None = None
        self.on_commit: Callable[[int, int], None] = ignore
        """Called after each commit with the memtable's bytes and the earliest expiry written."""
        self.on_effects: Callable[[Effects], None] = ignore
        """Called after each commit with its effects."""
        self.on_rows: Callable[[Collection[bytes], Effects], None] = ignore
        """Called after each commit that changed entries of search indexes, with their keys and all
        effects."""
        self.measure()

    # -- reading -----------------------------------------------------------------------------

    def view(self) -> View:
        """A view at the newest acknowledged Lsn."""
        while True:
            state = self.state
            txn = self.store.begin()
            lsn = self.visible  # after begin: see the module's invariants
            if self.state is state:
                try:
                    return View(lsn, state, txn, self.clock.now_us(), self.store)
                except BaseException:  # a warning that was made an error
                    txn.abort()
                    raise
            txn.abort()

    @property
    def memtable_bytes(self) -> int:
        """Estimated memory of all memtables."""
        state = self.state
        size_bytes = state.active.size_bytes
        return size_bytes if state.frozen is None else size_bytes + state.frozen.size_bytes

    # -- writing -----------------------------------------------------------------------------

    def begin(self, holder: Holder, timeout_ms: int | None = None) -> WriteBatch:
        """Takes the writer lock for `holder`. Raises BusyError, TransactionError, PoisonedError."""
        timeout_ms = self._options.busy_timeout_ms if timeout_ms is None else timeout_ms
        read = self._read(timeout_ms, None)
        self._acquire(timeout_ms, holder)
        try:
            batch = self._new_batch(read)
            batch.holder = holder
            return batch
        except BaseException:
            self._release(holder)
            raise

    def write(self, work: Work[_T], sync: Sync | None = None, key: bytes | None = None) -> _T:
        """Commits one small write; returns, once the commit is acknowledged, what `work` returns.
        Raises what begin(), `work` and commit() raise. `key` is one that `work` will read: its
        value in LMDB is read before the lock is taken, so no other writer waits for that read.

        Where another thread holds the writer lock with a call of this method, that thread executes
        the write too: threads that each take the lock in turn cost a switch of the interpreter per
        turn, and one more for the sync.
        """
        timeout_ms = self._options.busy_timeout_ms
        read = self._read(timeout_ms, key)
        commit = Commit(sync or self._options.sync)
        lock = self._lock
        # No name for the frame, which would be in a cycle with itself.
        has_lock = lock.try_acquire(current_frame())
        if has_lock:
            self._hold(current_frame())
        else:
            has_lock = self._queue(timeout_ms, QueuedWrite(current_frame(), work, commit, read))
        if has_lock:
            served: list[QueuedWrite] = []
            try:
                self._execute(work, commit, read)
                if waiting := lock.waiters():
                    self._serve(waiting, served)
            finally:
                self._release(current_frame())
            if served:
                self._wake(served, commit)
        self._acknowledge(commit)
        result: _T = commit.result
        return result

    def keep(self, writer: WriteBatch, holder: Holder) -> None:
        """Makes another holder the one of the batch and of the lock."""
        self._lock.hand_to(holder)
        writer.holder = holder

    def rollback(self, writer: WriteBatch, error: BaseException | None) -> None:
        """Drops the batch and releases the lock. Raises the typed form of an LMDB error."""
        try:
            writer.view.__exit__(None, error, None)
        finally:
            self._release(writer.holder)

    def commit(self, writer: WriteBatch, sync: Sync | None = None) -> Lsn:
        """Commits and releases the lock. Returns, once the commit is acknowledged, its Lsn, or the
        newest Lsn when it has no effects.

        Raises what `WriteBatch.finish` raises, DiskFullError (nothing was committed),
        PoisonedError, CommitUnknownError; TransactionError when the lock was taken over.
        """
        holder = writer.holder
        if not self._lock.is_of(holder):
            raise TransactionError("the transaction was interrupted, and nothing of it is stored")
        commit = Commit(sync or self._options.sync)
        try:
            with writer.view:
                self._finish(writer, commit)
        finally:
            self._release(holder)
        self._acknowledge(commit)
        return commit.lsn

    def make_visible(self, lsn: int) -> None:
        """Acknowledges every commit up to `lsn`, all of which have met their durability class."""
        if lsn > self.visible:
            with self._publishing:
                if lsn > self.visible:
                    self.visible = lsn
                    self._status.set_visible(lsn)
            if self._followers:
                self._progress.announce()

    def _synced(self, lsn: int, took_us: float) -> None:
        self._status.set_durable(lsn)
        self.minutes.synced(took_us)

    def freeze(self) -> Memtable | None:
        """Freezes the active memtable, so later commits go into a new one, unless one is frozen
        already. Returns the frozen memtable; None when there is nothing to checkpoint."""
        holder = current_frame()
        self._acquire(self._options.busy_timeout_ms, holder)
        try:
            state = self.state
            if state.frozen is None and state.active.entries:
                state.active.catalog = state.catalog
                state.active.log_offset = self.log.last_offset
                self.state = State(
                    Memtable(), state.active, state.built, state.catalog, state.older
                )
            return self.state.frozen
        finally:
            self._release(holder)

    def checkpoint_applied(self, built: frozenset[int], *, applied: bool = False) -> None:
        """Makes a write to LMDB visible to new views: `built` are the indexes that are complete,
        and with `applied` the frozen memtable is dropped. The caller holds the checkpoint mutex, so
        no freeze runs at the same time."""
        with self._lock:  # against a commit that changes the catalog
            state = self.state
            frozen = None if applied else state.frozen
            self.state = State(state.active, frozen, built, state.catalog, state.older)
        self.checkpoint_failure = None
        self._progress.announce()

    def measure(self) -> None:
        """Lets commits store documents as long as the files are below `size_bytes_max`."""
        limit = self._options.size_bytes_max
        if limit is not None:
            size = self.store.used_bytes + self.log.bytes_used
            self._batch = WriteBatch if size < limit else FullBatch

    def switch_store(self, store: Store) -> None:
        """Replaces the store by another one with the same content. The caller holds the checkpoint
        mutex. Open reads continue in the old store."""
        with self._lock:  # against a commit that changes the catalog
            self.store = store
            state = self.state
            self.state = State(state.active, state.frozen, state.built, state.catalog, state.older)

    def renew_log(self) -> None:
        """Lets the log continue in a new file, and not recycle files that have held records until
        `log.reuse()`. Raises StorageError, BusyError."""
        holder = current_frame()
        self._acquire(self._options.busy_timeout_ms, holder)
        try:
            self.log.renew()
        finally:
            self._release(holder)

    def checkpoint_failed(self, failure: StorageError) -> None:
        """Passes the error of a checkpoint to the writers that wait for memory."""
        self.checkpoint_failure = failure
        self._progress.announce()

    def wait_for_commit(self, after: int, timeout_s: float | None, owner: Owner) -> bool:
        """Waits for a visible commit after `after`; False at the timeout, or when the owner of the
        call is closed."""
        self._followers = True
        self._progress.wait_for(
            lambda: self.visible > after or self.is_closed or owner.is_closed, timeout_s
        )
        return self.visible > after and not (self.is_closed or owner.is_closed)

    def wake_followers(self) -> None:
        """Lets every wait_for_commit() check its condition again."""
        self._progress.announce()

    def await_writer(self) -> None:
        """Waits until the writer that holds the lock has released it. Raises BusyError."""
        holder = current_frame()
        self._acquire(self._options.busy_timeout_ms, holder)
        self._release(holder)

    def accept_clock(self) -> None:
        """See Database.accept_clock()."""
        with OneCommit(self, "always") as batch:
            clock_us, entry = self.clock.acceptance()
            batch.set(CLOCK, entry)
        self.clock.accept(clock_us)

    def await_published(self) -> None:
        """Waits, with an empty commit, until every commit published so far is acknowledged."""
        with OneCommit(self):
            pass

    def await_catalog(self) -> None:
        """Waits until the newest catalog is visible: the commit of another thread may not be."""
        older = self.state.older
        if older and older[0][0] > self.visible:
            required = self.log.required_lsn
            if self.log.durable_lsn < required:
                self.log.wait(Lsn(required))
            self.make_visible(older[0][0])

    def check_open(self) -> None:
        """Raises ClosedError or ForkedError once the database is closed, and TransactionError in a
        thread that has a transaction open: there, a call that waits for other threads could wait
        for ever, since those may wait for the writer lock."""
        if self._closed is not None:
            raise self._closed
        self.check_outside()

    def is_outside(self) -> bool:
        """Whether this thread has no transaction open."""
        return not self._is_mine()

    def check_outside(self) -> None:
        """Raises TransactionError in a thread that has a transaction open."""
        if not self.is_outside():
            raise TransactionError("this thread is inside its own open transaction: leave it first")

    @property
    def is_closed(self) -> bool:
        return self._closed is not None

    def close_to(self, error: AmberError) -> None:
        """Waits for the writer, and makes every later call raise the error."""
        holder = current_frame()
        self._acquire(self._options.busy_timeout_ms, holder)
        self._end(error)
        self.store.release(self._raise_closed)
        self._release(holder)
        self.wake_followers()

    def abandon_after_fork(self, error: AmberError) -> None:
        """In a forked child: makes every call raise the error, without any change to the parent's
        files."""
        self._end(error)
        self.store.abandon_after_fork(self._raise_closed)

    def _end(self, error: AmberError) -> None:
        self._closed = error
        self.state = ClosedState(error)

    def _raise_closed(self) -> NoReturn:
        assert self._closed is not None
        raise self._closed

    # -- inside ------------------------------------------------------------------------------

    def _read(self, timeout_ms: int, key: bytes | None) -> Read:
        """What a write can do before it takes the lock."""
        if self.memtable_bytes > self._options.memtable_bytes_max:
            self._await_room(timeout_ms)
        state = self.state
        if key is None or state.knows(key):
            return state, None, None
        return state, key, self.store.get(key)

    def _new_batch(self, read: Read) -> WriteBatch:
        """The batch of the caller, who holds the lock. Raises PoisonedError."""
        if self.log.failed is not None:
            self._refuse()
        before, key, value = read
        state = self.state
        now = self.clock.now_us()
        if state is not before:  # a checkpoint may have stored a newer value
            key = None
        txn = LazyTransaction(self.store, key, value)
        view = View(NEWEST, state, txn, now, self.store, Pending())
        return self._batch(self.log.next_lsn, view, self._options.transaction_bytes_max)

    def _execute(self, work: Work[object], commit: Commit, read: Read) -> None:
        """Makes one write, from its batch to its last effect in memory."""
        batch = self._new_batch(read)
        with batch.view:
            commit.result = work(batch)
            self._finish(batch, commit)

    def _finish(self, writer: WriteBatch, commit: Commit) -> None:
        """Appends and applies what a batch holds."""
        effects = commit.effects = writer.finish()
        if effects:
            commit.writer = writer
            commit.payload = encode(effects)
            commit.row_keys = writer.row_keys()
            self._append_and_apply(commit)
        else:
            lsn = commit.lsn = Lsn(self._published)
            if commit.sync == "always":  # what the batch has read must be durable
                self.log.required_lsn = lsn
            commit.required_lsn = self.log.required_lsn

    def _append_and_apply(self, commit: Commit) -> None:
        """Appends a commit to the log, and applies it: to the memtable, and to the catalog.

        A commit that was interrupted in here is passed again, so each step may be repeated.
        """
        writer = commit.writer
        lsn = writer.lsn
        time_us = self.clock.commit_us(writer.now_us)
        self._unfinished = commit
        if time_us >= self.minutes.end_us:
            self.minutes.turn(time_us)
        if failpoints.on:
            failpoints.reach("commit.encoded")
        try:
            commit.lsn = self.log.append(commit.payload, time_us, writer.kind, commit.sync, lsn=lsn)
        except StorageError:  # nothing was appended, or the log has poisoned itself
            self._unfinished = None
            raise
        if failpoints.on:
            failpoints.reach("commit.appended")
        self.clock.committed(writer.now_us)
        memtable = self.state.active
        memtable.publish(lsn, commit.effects, len(commit.payload), time_us)
        if commit.row_keys:
            memtable.note_rows(lsn, commit.row_keys, commit.effects)
        if writer.uniques is not None:
            memtable.note_unique(writer.uniques.rowids)
        if writer.catalog is not None:
            self.state = self.state.with_catalog(writer.catalog, lsn, self.visible)
        self._published = lsn
        commit.required_lsn = self.log.required_lsn
        commit.state = self.state  # now: close() may follow
        commit.memtable_bytes = memtable.size_bytes
        commit.is_applied = True
        self._unfinished = None
        if failpoints.on:
            failpoints.reach("commit.published")

    def _acknowledge(self, commit: Commit) -> None:
        """Waits for the durability class of a commit, and makes it visible. The lock is not held.
        Raises CommitUnknownError."""
        log = self.log
        if failpoints.on:
            failpoints.reach("commit.released")
        if log.durable_lsn < commit.required_lsn:
            log.wait(commit.required_lsn)
        if failpoints.on:
            failpoints.reach("commit.before-visible")
        self.make_visible(commit.lsn)
        if failpoints.on:
            failpoints.reach("commit.visible")
        if commit.effects:
            if commit.row_keys:
                _add_rows(commit.state)
            self.on_commit(commit.memtable_bytes, commit.writer.next_expiry_us)
            self.on_effects(commit.effects)
            if commit.row_keys:
                self.on_rows(commit.row_keys, commit.effects)

    def _queue(self, timeout_ms: int, queued: QueuedWrite) -> bool:
        """Waits with a write until this thread holds the lock: then True; False when the write was
        made by another thread. Raises what that raised, BusyError, TransactionError."""
        self._check_not_mine()
        holder, commit = queued.holder, queued.commit
        has_lock = self._lock.wait(queued, timeout_ms / 1000)
        if not has_lock and not queued.is_served:
            self._raise_busy(timeout_ms)
        if has_lock:
            self._hold(holder)
            if not (queued.is_served or commit.is_applied):
                return True
            self._release(holder)  # the thread that served it was interrupted
        self.log.forget(queued.gate)
        if queued.error is not None:
            raise queued.error
        return False

    def _serve(self, waiting: list[Waiter], served: list[QueuedWrite]) -> None:
        """Executes the writes that wait for the lock of this thread, each once in their order, and
        adds them to `served`."""
        for queued in waiting:
            if type(queued) is not QueuedWrite or not self._lock.choose(queued):
                continue
            if queued.is_served or has_ended(queued.holder):
                continue
            if not queued.commit.is_applied:
                try:
                    self._execute(queued.work, queued.commit, queued.read)
                except Exception as error:
                    queued.error = error
            queued.is_served = True
            queued.server = None  # this frame, which has the list
            served.append(queued)

    def _wake(self, served: list[QueuedWrite], commit: Commit) -> None:
        """Wakes the threads of the writes that this one has made: each once, when it need not wait
        for a sync, or that has ended."""
        log = self.log
        leads = log.durable_lsn < commit.required_lsn
        for queued in served:
            required = None if queued.error is not None else queued.commit.required_lsn
            if required is None or not leads or log.durable_lsn >= required:
                queued.wake()
                leads = leads or (required is not None and log.durable_lsn < required)
            else:
                log.wake_at(required, queued.gate)

    def _complete(self, commit: Commit) -> None:
        """Completes the commit of a call that was interrupted. Without an answer to its caller it
        is like one that a power loss interrupted: it may be kept."""
        try:
            self.state.active.forget_rows(commit.writer.lsn)
            self._append_and_apply(commit)
        except AmberError:
            self._unfinished = None
        except Exception as error:
            self.log.poison(error)
            self._unfinished = None
            raise

    def _is_mine(self) -> bool:
        """Whether a transaction or another call of this thread holds the writer lock."""
        return self._owner == threading.get_ident() and self._lock.holder is not None

    def _acquire(self, timeout_ms: int, holder: Holder) -> None:
        if not self._lock.try_acquire(holder):
            self._check_not_mine()
            if not self._lock.acquire(holder, timeout_ms / 1000):
                self._raise_busy(timeout_ms)
        self._hold(holder)

    def _hold(self, holder: Holder) -> None:
        """Called once the lock is taken."""
        self._owner = threading.get_ident()
        if self._unfinished is not None:
            try:
                self._complete(self._unfinished)
            except BaseException:
                self._release(holder)
                raise

    def _check_not_mine(self) -> None:
        if self._is_mine():
            raise TransactionError(
                "this thread is inside its own open transaction: write through it "
                "(tx[name]), or leave it first"
            )

    def _raise_busy(self, timeout_ms: int) -> NoReturn:
        raise BusyError(
            f"another writer held the lock for {timeout_ms} ms: try again, or make the "
            "transactions shorter",
            timeout_s=timeout_ms / 1000,
        )

    def _release(self, holder: Holder) -> None:
        self._owner = 0
        self._lock.release(holder)

    def _await_room(self, timeout_ms: int) -> None:
        """Waits, without the lock, while the memtables are over their limit."""
        limit = self._options.memtable_bytes_max
        deadline = time.monotonic() + timeout_ms / 1000
        while self.memtable_bytes > limit:
            self.on_commit(self.memtable_bytes, NEVER)
            if not self._progress.wait_for(
                lambda: self.memtable_bytes <= limit or self.checkpoint_failure is not None,
                deadline - time.monotonic(),
            ):
                raise BusyError(
                    "the memtables are full and the checkpoint has not ended: try again, or "
                    "raise memtable_bytes_max at open",
                    timeout_s=timeout_ms / 1000,
                )
            if self.memtable_bytes > limit and self.checkpoint_failure is not None:
                raise self.checkpoint_failure

    def _refuse(self) -> NoReturn:
        raise PoisonedError(
            "an earlier write or sync of the log failed, so the state on disk is unknown: "
            f"close the database and open it again ({self.log.failed!r})"
        ) from self.log.failed


def _add_rows(state: State) -> None:
    """Adds the rows of an acknowledged commit to the postings in memory, so that no search has to.
    A thread of its own would take the interpreter from this one for as long."""
    from amberdb.engine.search.segments import add_rows  # imports numpy

    with suppress(Exception):  # the commit is acknowledged: a search or the checkpoint will raise
        add_rows(state.active, state.catalog.row_indexes)


def ignore(*_: object) -> None:
    """Does nothing: a callback that was not set."""


class OneCommit:
    """A write batch for one block: committed at its end, or rolled back by an exception."""

    __slots__ = ("_committer", "_sync", "_writer")

    def __init__(self, committer: Committer, sync: Sync | None = None) -> None:
        if sync is not None:
            check_sync(sync)
        self._committer = committer
        self._sync: Sync | None = sync

    def __enter__(self) -> WriteBatch:
        self._writer = self._committer.begin(holder=current_frame(1))
        return self._writer

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._committer.commit(self._writer, self._sync)
        else:
            self._committer.rollback(self._writer, error)
