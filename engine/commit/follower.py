"""The follower: reads a database that another process may be writing.

    MANIFEST changed?  ->  LMDB transaction  ->  visible Lsn of STATUS  ->  log up to it -> memtable

Invariants:
- A view is at an acknowledged Lsn: the visible Lsn of the writer, which is read after the LMDB
  transaction has begun. So LMDB never holds a commit that the view must not see.
- The memtable has exactly the commits after the applied Lsn of the view's LMDB transaction, up to
  the view's Lsn.
- When a part of the log that is needed has been recycled, a checkpoint has moved it into LMDB: a
  new LMDB transaction is begun.
- A writer that ends uncleanly may lose commits that were read here. The next one has a new epoch,
  and with a new epoch everything in memory is dropped and read again, caches of searches too.
- On a file system that is mounted read-only LMDB cannot register readers. There a shared lock keeps
  writers away, which would reuse pages that are read here.
- No file is changed, and no LMDB transaction lasts longer than a call, unless a Snapshot holds it.
"""

import gc
import os
import threading
import time
from collections.abc import Iterator
from typing import Final, NoReturn, final

from amberdb._call_lock import CallLock
from amberdb._errors import (
    AmberError,
    CorruptionError,
    DatabaseMissingError,
    LockedError,
    LogTruncatedError,
    OpenError,
    ReplacedError,
    StorageError,
    StorageFullError,
)
from amberdb._fs import DirLock
from amberdb._types import NO_LSN, Lsn, lsn_epoch
from amberdb.engine.commit.clock import Clock
from amberdb.engine.failures import Failures
from amberdb.engine.jobs import Jobs
from amberdb.engine.options import Options
from amberdb.engine.schema.catalog import Catalog
from amberdb.engine.schema.codec import decode_effects
from amberdb.engine.schema.keyspace import (
    APPLIED,
    CLOCK,
    COLLECTIONS,
    COUNTERS,
    ENTRY_PREFIX_SIZE,
    LAST_TIME,
    Effects,
)
from amberdb.engine.schema.migration import Upgrades
from amberdb.engine.schema.schema import Schema
from amberdb.engine.search.searcher import VectorParts
from amberdb.engine.search.searchers import Searchers
from amberdb.engine.storage import manifest as manifests
from amberdb.engine.storage.cache_file import CacheFolder
from amberdb.engine.storage.data_file import check_version
from amberdb.engine.storage.directory import LOCK, WAL, data_directory, lock_owner
from amberdb.engine.storage.manifest import Manifest
from amberdb.engine.storage.memtable import Memtable
from amberdb.engine.storage.readable import Owner
from amberdb.engine.storage.status import Status
from amberdb.engine.storage.store import Store
from amberdb.engine.storage.trees import Reads
from amberdb.engine.storage.view import State, View, built_keyspaces
from amberdb.wal import ForeignLogReader, Record

_TRIES_MAX: Final = 20
_PAUSE_MS_MAX: Final = 50
"""The longest pause between two tries."""
_POLL_S: Final = 0.02
"""The time between two looks for a commit: the writing process wakes no reader."""
_CATALOG: Final = (COLLECTIONS, COUNTERS, CLOCK)
_NEVER: Final = -1
"""In place of the id of an LMDB transaction, before the first one."""


class _MovedOn(Exception):
    """The writer has changed files between two reads of them: read them again."""


_RETRIED = (_MovedOn, LogTruncatedError, CorruptionError, FileNotFoundError)
"""Errors that a working writer can cause; they repeat only when files are damaged."""


@final
class Follower:
    """The readable of a database that another process may be writing. Threads may share it."""

    def __init__(self, path: str, options: Options, *, may_write: bool = False) -> None:
        """With `may_write` this process may open the database to write while it follows. Raises
        OpenError and its subclasses, CorruptionError."""
        self._may_write = may_write
        self.path = path
        self._searchers: Searchers | None = None
        self.failures = Failures()
        self.state = State(Memtable(), None, frozenset(), Catalog({}))
        self._options = options
        self._fs = options.fs
        self._mutex = CallLock()
        self._closed: AmberError | None = None
        self._closing = threading.Event()
        self._where = os.path.join(path, manifests.NAME)
        self._stamp: tuple[int, ...] = ()
        """Identifies the MANIFEST file that was read last."""
        self._manifest: Manifest | None = None
        self._store: Store | None = None
        self._status: Status | None = None
        self._upgrades: dict[str, Upgrades] = {}
        """By collection the functions to newer versions that this process has declared."""
        self._end = NO_LSN
        """The Lsn up to which commits are acknowledged without a STATUS."""
        self._looked_at = 0.0
        self.clock = Clock(options, 0, None)
        self._reset()
        self.log = FollowedLog(self)
        self._lock = self._lock_out_writers()
        try:
            self.refresh()
        except BaseException:
            self._unlock()
            raise

    # -- reading -----------------------------------------------------------------------------

    @property
    def visible(self) -> int:
        """The Lsn of the newest view so far."""
        return self._lsn

    @property
    def store(self) -> Store:
        """The store of the generation in use."""
        self.check_open()
        assert self._store is not None
        return self._store

    @property
    def searchers(self) -> Searchers:
        """The searchers of the open files; new ones after an unclean end of the writer."""
        self.check_open()
        assert self._searchers is not None
        return self._searchers

    @property
    def manifest(self) -> Manifest:
        """MANIFEST as it was read last."""
        assert self._manifest is not None
        return self._manifest

    def view(self) -> View:
        """A view at the newest acknowledged Lsn, or at one no older than `refresh_interval_ms`.

        Raises ReplacedError, DatabaseMissingError; CorruptionError, StorageError.
        """
        with self._mutex:
            return self._view(self._is_due())

    def refresh(self) -> Lsn:
        """Reads the commits acknowledged since the last view. Later views are at the returned Lsn
        or after it."""
        with self._mutex, self._view(looks=True) as view:
            return Lsn(view.lsn)

    def register_upgrades(self, name: str, upgrades: Upgrades) -> None:
        """Adds functions to newer versions of a collection's documents."""
        with self._mutex:
            self._upgrades[name] = {**self._upgrades.get(name, {}), **upgrades}
            if name in self.state.catalog.schemas:
                self.state.catalog.schemas[name].register_upgrades(upgrades)

    @property
    def status(self) -> Status | None:
        """STATUS; None while no writer has opened the database since the machine was started."""
        return self._status

    @property
    def tail(self) -> ForeignLogReader:
        """The reader of the writer's log."""
        return self._tail

    def wait_for_commit(self, after: int, timeout_s: float | None, owner: Owner) -> bool:
        """Waits for a durable commit after `after`; False at the timeout, or when the owner of the
        call is closed."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if owner.is_closed:
                return False
            self.refresh()
            if self.log.durable_lsn > after:
                return True
            left = _POLL_S if until is None else min(_POLL_S, until - time.monotonic())
            if left <= 0 or self._closing.wait(left):
                return False

    def close(self, error: AmberError, *, forked: bool = False) -> None:
        """Makes every later call raise the error. In a forked child no lock is waited for: the
        thread that held it does not exist there."""
        if forked:
            self._mutex = CallLock()
        else:
            self._closing.set()
            if self._searchers is not None:
                self._searchers.stop()
        with self._mutex:
            self._closed = error
            self._unlock()
            if self._status is not None:
                self._status.close()
            if self._store is not None:
                (self._store.abandon_after_fork if forked else self._store.release)(self._refuse)
        if self._searchers is not None and not forked:
            self._searchers.clear()

    def _lock_out_writers(self) -> DirLock | None:
        """Takes the shared lock against writers where LMDB cannot register readers; None elsewhere.
        Raises LockedError."""
        if not self._fs.is_read_only(self.path):
            return None
        try:
            return self._fs.lock_shared(os.path.join(self.path, LOCK))
        except FileNotFoundError:  # no writer has opened this copy
            return None
        except BlockingIOError as error:
            pid, host, _, is_shared = lock_owner(error)
            raise LockedError(
                f"{self.path} is mounted read-only and open for writing in process {pid or '?'} on "
                f"host {host or '?'}, which would overwrite pages that are read here: mount it so "
                "that lock.mdb can be written, or close it there",
                path=self.path,
                pid=pid,
                host=host,
                is_shared=is_shared,
            ) from None

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    # -- looking -----------------------------------------------------------------------------

    def _is_due(self) -> bool:
        """Whether `refresh_interval_ms` asks for a look at the writer now."""
        interval_ms = self._options.refresh_interval_ms
        if not interval_ms:
            return interval_ms == 0
        return time.monotonic() - self._looked_at >= interval_ms / 1000

    def _view(self, looks: bool) -> View:
        """A view, after as many tries as it takes. The caller holds the mutex."""
        tries = 0
        has_reopened = False
        while True:
            self.check_open()
            try:
                return self._try_view(looks or tries > 0)
            except StorageFullError:  # the file has outgrown the map
                if has_reopened:
                    raise
                self._release_store()
                looks = has_reopened = True
            except _RETRIED as error:
                tries += 1
                if tries == _TRIES_MAX:
                    _fail(self.path, error)
            except OSError as error:
                if isinstance(error, AmberError):
                    raise
                kind = OpenError if self._manifest is None else StorageError
                raise kind(f"{self.path} cannot be read: {error}", path=self.path) from error
            time.sleep(min(2**tries, _PAUSE_MS_MAX) / 1000)

    def _try_view(self, looks: bool) -> View:
        if looks:
            self._look()
        txn = self.store.begin()
        try:
            self._catch_up(txn, looks)
            return View(self._lsn, self.state, txn, self.clock.now_us(), self.store)
        except BaseException:
            txn.abort()
            raise

    def _look(self) -> None:
        """Reads MANIFEST when it was replaced since the last look."""
        try:
            stamp = self._fs.file_identity(self._where)
        except FileNotFoundError:
            raise DatabaseMissingError(
                f"the database at {self.path} was deleted or moved", path=self.path
            ) from None
        if stamp != self._stamp:
            self._open(manifests.read(self._fs, self.path), stamp)
            self._stamp = stamp
        self._looked_at = time.monotonic()

    def _open(self, manifest: Manifest, stamp: tuple[int, ...]) -> None:
        """Opens the files of a MANIFEST that is new, or was replaced."""
        known = self._manifest
        if known is None:
            check_version(self.path, manifest.lmdb_version)
            self._tail = ForeignLogReader(
                self._fs, os.path.join(self.path, WAL), manifest.database_id
            )
        elif manifest.database_id != known.database_id or (
            manifest.generation == known.generation
            and self._store is not None
            and not self._store.is_in_place()
        ):
            if self._fs.file_identity(self._where) != stamp:  # compacted since MANIFEST was read
                raise _MovedOn
            raise ReplacedError(
                f"{self.path} is another database than the one that was opened, or a copy of it: "
                "open it again",
                path=self.path,
            )
        if known is None or manifest.generation != known.generation or self._store is None:
            self._change_store(manifest, stamp)
        self._manifest = manifest
        if known is None or manifest.epoch != known.epoch:
            self._reset()
        end, status = manifest.clean_lsn, self._read_status(manifest)
        if end is None and status is None:
            end = self._tail.end(self.store.applied_lsn)
            status = self._read_status(manifest)
            if status is not None:  # of a writer that may not have acknowledged all records
                end = None
        self._end, self._status = end or NO_LSN, status

    def _read_status(self, manifest: Manifest) -> Status | None:
        return Status.read(self._fs, self.path, manifest.database_id)

    def _change_store(self, manifest: Manifest, stamp: tuple[int, ...]) -> None:
        """Opens the store of another generation. Open reads continue in the old one."""
        data = data_directory(self.path, manifest.generation)
        map_bytes = self._options.map_bytes
        try:
            store = Store(
                data,
                fs=self._fs,
                create=False,
                map_bytes=map_bytes,
                beside=True,
                may_write=self._may_write,
            )
        except OpenError:
            if self._fs.file_identity(self._where) != stamp:  # MANIFEST was replaced again
                raise _MovedOn from None
            raise
        if self._store is not None:
            self._store.release(self._refuse)
        self._store = store
        self._txn_id = _NEVER

    def _release_store(self) -> None:
        """Lets the next look open the same file again, with a map of its present size, unless a
        read of this process still keeps the old one."""
        self.store.release(self._refuse)
        self._store = None
        gc.collect()
        self._stamp = ()

    def _reset(self) -> None:
        """Drops everything that was read."""
        self._txn_id = _NEVER
        self._applied: Lsn = NO_LSN
        self._lsn: Lsn = NO_LSN
        self._accepted: bytes | None = None
        """The entry that accept_clock() of the writer has stored."""
        self.clock.restart(0, None)
        self._memtable = Memtable()
        self._prefixes: frozenset[bytes] = frozenset()
        self._schemas: dict[tuple[bytes, bytes], Schema] = {}
        """By their entries in the catalog: what has not changed is not compiled again."""
        if self._manifest is not None:
            id = self._manifest.database_id
            folder = CacheFolder(self._fs, self.path, id, NO_LSN, (), read_only=True)
            builder = Jobs("vectors", self.failures, background=self._options.background)
            self._searchers = Searchers(VectorParts(folder, builder, self))

    # -- catching up -------------------------------------------------------------------------

    def _catch_up(self, txn: Reads, looks: bool) -> None:
        """Reads the log from the LMDB transaction on, up to the last view's Lsn, or with `looks` up
        to the visible Lsn."""
        id = txn.id()
        is_new = id != self._txn_id
        applied = Lsn(int.from_bytes(txn.get(APPLIED) or b"")) if is_new else self._applied
        lsn: int = max(self._lsn, applied)
        if looks:
            lsn = max(lsn, self._newest())  # after the transaction began: see the invariants
        if not is_new and lsn == self._lsn:
            return
        if lsn_epoch(lsn) > self.manifest.epoch:
            raise _MovedOn
        memtable = self._memtable if applied == self._applied else self._memtable.after(applied)
        last = Lsn(max(memtable.last_lsn, applied))
        records = list(self._tail.read(last, Lsn(lsn)))
        try:
            commits = _published(memtable, records)
            self._take(txn, memtable, lsn, commits, is_new, has_jumped=applied > self._lsn)
        except BaseException:
            self._reset()  # the memtable may have a part of the commits
            raise
        self._memtable, self._lsn = memtable, Lsn(lsn)
        self._txn_id, self._applied = id, applied

    def _newest(self) -> int:
        """The newest acknowledged Lsn."""
        return self._end if self._status is None else max(self._status.visible, self._end)

    def _take(
        self,
        txn: Reads,
        memtable: Memtable,
        lsn: int,
        commits: list[tuple[Lsn, Effects]],
        is_new: bool,
        has_jumped: bool,
    ) -> None:
        """Makes the state of the view: the catalog, the built indexes, and the row events."""
        catalog, built = self.state.catalog, self.state.built
        changes = any(key.startswith(_CATALOG) for _, effects in commits for key in effects)
        if is_new or changes:
            bare = State(memtable, None, frozenset(), Catalog({}))
            view = View(lsn, bare, txn, 0, self.store)
            built = built_keyspaces(view)
            self._accepted = view.get(CLOCK)
            if changes or has_jumped or self._txn_id == _NEVER:
                catalog = self._load_catalog(view)
        if self._prefixes:
            for commit_lsn, effects in commits:
                rows = [key for key in effects if key[:ENTRY_PREFIX_SIZE] in self._prefixes]
                if rows:
                    memtable.note_rows(commit_lsn, rows, effects)
        last_us = memtable.last_us or int.from_bytes(txn.get(LAST_TIME) or b"")
        self.clock.restart(last_us, self._accepted)
        has_changed = catalog is not self.state.catalog
        self.state = State(memtable, None, built, catalog)
        if has_changed:
            numbers = frozenset(index.number for index in catalog.row_indexes.values())
            self.searchers.forget_others(numbers)

    def _load_catalog(self, view: View) -> Catalog:
        catalog = Catalog.load(view, self._options, self._schemas)
        for name, upgrades in self._upgrades.items():
            if name in catalog.schemas:
                catalog.schemas[name].register_upgrades(upgrades)
        self._prefixes = catalog.row_prefixes
        return catalog

    def check_open(self) -> None:
        """Raises ClosedError, ForkedError."""
        if self._closed is not None:
            raise self._closed

    def _refuse(self) -> NoReturn:
        self.check_open()
        raise AssertionError("this store is of an old generation")


def _published(memtable: Memtable, records: list[Record]) -> list[tuple[Lsn, Effects]]:
    """Adds the commits of log records to the memtable, and returns them."""
    commits: list[tuple[Lsn, Effects]] = []
    for record in records:
        effects = decode_effects(record.payload)
        memtable.publish(record.lsn, effects, len(record.payload), record.time_us)
        commits.append((record.lsn, effects))
    return commits


def _fail(path: str, error: Exception) -> NoReturn:
    """Raises the error of the last try, or a StorageError that explains it."""
    if isinstance(error, AmberError) and not isinstance(error, LogTruncatedError):
        raise error
    raise StorageError(
        f"{path}: the writer changes files faster than this process reads them, or files are "
        f"missing ({error or type(error).__name__}): try again, then run `amberdb check`",
        path=path,
    ) from error


@final
class FollowedLog:
    """The writer's log, up to the follower's newest view."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower

    @property
    def durable_lsn(self) -> Lsn:
        """The durable Lsn of the writer, or that of the newest view when it is older."""
        visible, status = self._follower.visible, self._follower.status
        return Lsn(visible if status is None else min(visible, status.durable))

    @property
    def first_lsn(self) -> Lsn:
        """The oldest record kept, or the next one when there is none."""
        segments = self._follower.tail.segments()
        return segments[0].header.first_lsn if segments else Lsn(self._follower.visible + 1)

    def read(self, after: Lsn, *, upto: Lsn | None = None) -> Iterator[Record]:
        """Durable records after `after`, up to `upto`. Raises LogTruncatedError,
        CorruptionError."""
        last = self.durable_lsn if upto is None else min(upto, Lsn(self._follower.visible))
        return self._follower.tail.read(after, last)

    def wait(self, lsn: int) -> None:
        """Returns at once: another process syncs."""

    def sync(self) -> None:
        """Does nothing: another process syncs."""
