"""The committer: the writer lock, and the way of a commit from effects to acknowledged.

    begin -> Writer -> effects -> one log record -> memtable -> lock released -> synced -> visible

Invariants:
- One writer at a time; Lsns are given and published in order.
- A commit is visible when its own durability class and that of every earlier commit are met, and
  only then is it acknowledged.
- Whatever interrupts the way between the log and the memtable poisons the database: memory and
  log would disagree.
- A view begins its LMDB transaction before it reads the visible Lsn, and a checkpoint makes its
  Lsns visible before it commits: so LMDB never holds more than the view may see.
"""

import threading
import time
from collections.abc import Callable
from typing import NoReturn

from amberdb import _failpoints as failpoints
from amberdb._errors import (
    AmberError,
    BusyError,
    PoisonedError,
    StorageError,
    TransactionError,
)
from amberdb._types import Lsn, Sync
from amberdb.engine.commit.write_batch import WriteBatch
from amberdb.engine.options import Options, check_sync
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.codec import encode
from amberdb.engine.schema.document_format import NEVER
from amberdb.engine.schema.keyspace import Effects
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.status import Status
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.view import NEWEST, ClosedState, LazyTransaction, Pending, State, View
from amberdb.wal import Log


class Committer:
    """Owned by the Database; the collections and the background jobs write through it."""

    def __init__(
        self,
        store: Store,
        log: Log,
        memtable: Memtable,
        built: frozenset[int],
        catalog: Catalog,
        last_us: int,
        status: Status,
        options: Options,
    ) -> None:
        self.store = store
        self.log = log
        self.state = State(memtable, None, built, catalog)
        self.visible: int = log.last_lsn
        self.checkpoint_failure: StorageError | None = None
        self._published: int = log.last_lsn
        self._last_us = last_us
        self._status = status
        log.on_durable(status.set_durable)
        self._options = options
        self._clock = options.clock
        self._lock = threading.Lock()
        self._owner = 0
        self._progress = threading.Condition()
        """Notified when a checkpoint ends, or when the visible Lsn grows and somebody follows."""
        self._followers = 0
        self._closed: AmberError | None = None
        self.on_commit: Callable[[int, int], None] = _ignore_commit
        """Called after each commit with the memtable's bytes and the earliest expiry written."""
        self.on_effects: Callable[[Effects], None] = _ignore_effects
        """Called after each commit with its effects."""

    # -- reading -----------------------------------------------------------------------------

    def now_us(self) -> int:
        """The clock, never behind the last commit."""
        now = int(self._clock() * 1_000_000)
        return now if now > self._last_us else self._last_us

    def view(self) -> View:
        """Everything acknowledged, as of now."""
        while True:
            state = self.state
            txn = self.store.begin()
            lsn = self.visible  # after begin: see the module's invariants
            if self.state is state:
                return View(lsn, state, txn, self.now_us(), self.store.path)
            txn.abort()

    @property
    def memtable_bytes(self) -> int:
        """Estimated memory of all memtables."""
        state = self.state
        return state.active.size_bytes + (
            state.frozen.size_bytes if state.frozen is not None else 0
        )

    # -- writing -----------------------------------------------------------------------------

    def begin(self, timeout_ms: int | None = None, key: bytes | None = None) -> WriteBatch:
        """Takes the writer lock. Raises BusyError, TransactionError, PoisonedError.

        `key` is one that the writer will read: what LMDB has of it is read before the lock is
        taken, so that no other writer waits for that.
        """
        timeout_ms = self._options.busy_timeout_ms if timeout_ms is None else timeout_ms
        if self.memtable_bytes > self._options.memtable_bytes_max:
            self._await_room(timeout_ms)
        before = self.state
        value = None
        if key is not None:
            if before.knows(key):
                key = None
            else:
                value = self.store.get(key)
        self._acquire(timeout_ms)
        try:
            if self.log.failed is not None:
                self._refuse()
            state = self.state
            now = int(self._clock() * 1_000_000)
            if now < self._last_us:
                now = self._last_us
            if state is not before:  # a checkpoint may have moved something newer into LMDB
                key = None
            late = LazyTransaction(self.store, key, value)
            view = View(NEWEST, state, late, now, self.store.path, Pending())
            return WriteBatch(self.log.next_lsn, view, self._options.transaction_bytes_max)
        except BaseException:
            self._release()
            raise

    def rollback(self, writer: WriteBatch, error: BaseException | None) -> None:
        """Nothing happened. Raises the typed form of what LMDB raised."""
        try:
            writer.view.__exit__(None, error, None)
        finally:
            self._release()

    def commit(self, writer: WriteBatch, sync: Sync | None = None) -> Lsn:
        """Returns when the commit is acknowledged: its Lsn, or the newest read if it wrote nothing.

        Raises what `WriteBatch.finish` raises, DiskFullError (then nothing happened),
        PoisonedError, CommitUnknownError.
        """
        log = self.log
        try:
            with writer.view:
                effects = writer.finish()
                sync = sync or self._options.sync
                if effects:
                    lsn = self._append_and_apply(writer, effects, sync)
                else:
                    lsn = Lsn(self._published)
                    if sync == "always":  # that there was nothing to do must be durable as well
                        log.required_lsn = lsn
                if writer.catalog is not None:
                    state = self.state
                    self.state = State(state.active, state.frozen, state.built, writer.catalog)
                required = log.required_lsn
                memtable_bytes = self.state.active.size_bytes  # here, since close() may come next
        finally:
            self._release()
        if failpoints.on:
            failpoints.reach("commit.released")
        if log.durable_lsn < required:
            log.wait(Lsn(required))
        if failpoints.on:
            failpoints.reach("commit.before-visible")
        self.make_visible(lsn)
        if failpoints.on:
            failpoints.reach("commit.visible")
        if effects:
            self.on_commit(memtable_bytes, writer.next_expiry_us)
            self.on_effects(effects)
        return lsn

    def make_visible(self, lsn: int) -> None:
        """Called when everything up to `lsn` has met its class."""
        if lsn > self.visible:
            with self._progress:
                if lsn > self.visible:
                    self.visible = lsn
                    self._status.set_visible(lsn)
                if self._followers:
                    self._progress.notify_all()

    def freeze(self) -> Memtable | None:
        """The memtable to checkpoint, frozen: no more commits go into it. None when empty."""
        self._acquire(self._options.busy_timeout_ms)
        try:
            state = self.state
            if state.frozen is None and state.active.entries:
                self.state = State(Memtable(), state.active, state.built, state.catalog)
            return self.state.frozen
        finally:
            self._release()

    def checkpoint_applied(self, built: frozenset[int], *, applied: bool = False) -> None:
        """LMDB was written: new views see it; with `applied`, instead of the frozen memtable.
        Called with the checkpoint mutex held, so it races with no freeze."""
        with self._lock:  # against a commit that changes the catalog
            state = self.state
            frozen = None if applied else state.frozen
            self.state = State(state.active, frozen, built, state.catalog)
        with self._progress:
            self.checkpoint_failure = None
            self._progress.notify_all()

    def switch_store(self, store: Store) -> None:
        """To another file of the same contents. Called with the checkpoint mutex held. Whoever has
        the old store reads on in it."""
        with self._lock:  # against a commit that changes the catalog
            self.store = store
            state = self.state
            self.state = State(state.active, state.frozen, state.built, state.catalog)

    def renew_log(self) -> None:
        """The log goes on in a file that has held no record, and keeps none that has, until
        `log.reuse()`. Raises StorageError, BusyError."""
        self._acquire(self._options.busy_timeout_ms)
        try:
            self.log.renew()
        finally:
            self._release()

    def checkpoint_failed(self, failure: StorageError) -> None:
        with self._progress:
            self.checkpoint_failure = failure
            self._progress.notify_all()

    def wait_for_commit(self, after: int, timeout_s: float | None) -> bool:
        """Blocks until something after `after` is visible; False when time ran out."""
        with self._progress:
            self._followers += 1
            try:
                self._progress.wait_for(lambda: self.visible > after or self.is_closed, timeout_s)
                return self.visible > after and not self.is_closed
            finally:
                self._followers -= 1

    def wake_followers(self) -> None:
        with self._progress:
            self._progress.notify_all()

    def await_published(self) -> None:
        """Returns when everything published so far is acknowledged, by an empty commit."""
        with OneCommit(self):
            pass

    def check_open(self) -> None:
        """Raises ClosedError or ForkedError once the database is closed, and TransactionError in a
        thread that has a transaction open: a call that waits for other threads must not be made
        there, since those may wait for this one."""
        if self._closed is not None:
            raise self._closed
        self.check_outside()

    def check_outside(self) -> None:
        """Raises TransactionError in a thread that has a transaction open."""
        if self._owner == threading.get_ident():
            raise TransactionError("this thread is inside its own open transaction: leave it first")

    @property
    def is_closed(self) -> bool:
        return self._closed is not None

    def close_to(self, error: AmberError) -> None:
        """Waits for the writer, then makes every later call raise the error."""
        self._acquire(self._options.busy_timeout_ms)
        self._end(error)
        self.store.release(self._raise_closed)
        self._release()
        self.wake_followers()

    def abandon_after_fork(self, error: AmberError) -> None:
        """In a forked child: makes every call raise, and touches no file of the parent."""
        self._end(error)
        self.store.abandon_after_fork(self._raise_closed)

    def _end(self, error: AmberError) -> None:
        self._closed = error
        self.state = ClosedState(error)

    def _raise_closed(self) -> NoReturn:
        assert self._closed is not None
        raise self._closed

    # -- inside ------------------------------------------------------------------------------

    def _append_and_apply(self, writer: WriteBatch, effects: Effects, sync: Sync) -> Lsn:
        """The commit into the log, then into the memtable."""
        payload = encode(effects)
        row_keys = writer.row_keys()
        if failpoints.on:
            failpoints.reach("commit.encoded")
        try:
            lsn = self.log.append(payload, writer.now_us, writer.kind, sync)
            if failpoints.on:
                failpoints.reach("commit.appended")
            self._last_us = writer.now_us
            memtable = self.state.active
            memtable.publish(lsn, effects, len(payload), writer.now_us)
            if row_keys:
                memtable.note_rows(lsn, row_keys, effects)
            self._published = lsn
            if failpoints.on:
                failpoints.reach("commit.published")
        except StorageError:
            raise  # the log refused: nothing was written, or it has poisoned itself
        except BaseException as error:
            self.log.poison(error)
            raise
        return lsn

    def _acquire(self, timeout_ms: int) -> None:
        if not self._lock.acquire(False):
            if self._owner == threading.get_ident():
                raise TransactionError(
                    "this thread is inside its own open transaction: write through it "
                    "(tx[name]), or leave it first"
                )
            if not self._lock.acquire(timeout=timeout_ms / 1000):
                raise BusyError(
                    f"another writer kept the lock for {timeout_ms} ms: try again, or shorten "
                    "the transactions",
                    timeout_s=timeout_ms / 1000,
                )
        self._owner = threading.get_ident()

    def _release(self) -> None:
        self._owner = 0
        self._lock.release()

    def _await_room(self, timeout_ms: int) -> None:
        """Without the lock: waits while the memtables are over their limit."""
        limit = self._options.memtable_bytes_max
        deadline = time.monotonic() + timeout_ms / 1000
        while self.memtable_bytes > limit:
            self.on_commit(self.memtable_bytes, NEVER)
            with self._progress:
                if self.memtable_bytes <= limit:
                    return
                if self.checkpoint_failure is not None:
                    raise self.checkpoint_failure
                if not self._progress.wait(deadline - time.monotonic()):
                    raise BusyError(
                        "memory for new commits is full and the checkpoint is behind: try again",
                        timeout_s=timeout_ms / 1000,
                    )

    def _refuse(self) -> NoReturn:
        raise PoisonedError(
            "an earlier write or sync of the log failed, so what is on disk is unknown: "
            f"close and reopen the database ({self.log.failed!r})"
        ) from self.log.failed


def _ignore_commit(memtable_bytes: int, next_expiry_us: int) -> None:
    pass


def _ignore_effects(effects: Effects) -> None:
    pass


class OneCommit:
    """The engine's side of one call: a writer, committed on leaving."""

    __slots__ = ("_committer", "_key", "_sync", "_writer")

    def __init__(
        self, committer: Committer, sync: Sync | None = None, key: bytes | None = None
    ) -> None:
        if sync is not None:
            check_sync(sync)
        self._committer = committer
        self._sync: Sync | None = sync
        self._key = key

    def __enter__(self) -> WriteBatch:
        self._writer = self._committer.begin(key=self._key)
        return self._writer

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._committer.commit(self._writer, self._sync)
        else:
            self._committer.rollback(self._writer, error)
